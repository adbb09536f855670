"""The tiny vision-language model through the real trainer: supervised once a seed, then every method from there.

All runs of a seed see the same questions in the same order, start from the same weights, and draw with the same seeds.
One engine serves all of them: it is given the starting weights before each. Held-out figures are of other patients,
each domain with about as many rows, though in training one domain is a third of all and another three in a hundred.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from benchmarks.drpo_vs_grpo import results
from benchmarks.drpo_vs_grpo.corpora import EVEN, UNEVEN, build
from benchmarks.drpo_vs_grpo.methods import BASE, BINS, METHODS
from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.recipe_text import nearest
from qoq_data.record import Split
from qoq_train.data.corpus import Corpus
from qoq_train.models.tiny import write_tiny_model
from qoq_train.models.weights import state_for_engine
from qoq_train.prompts import fixed_pieces
from qoq_train.recipe import TrainRecipe, train_recipe_text
from qoq_train.training.assembly import CONVENTIONS, assemble, start_engine
from qoq_train.training.evaluate import evaluate
from qoq_train.training.optimiser import trained_parameters
from qoq_train.training.run_folder import RunFolder
from qoq_train.training.sft import supervise
from qoq_train.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qoq_train.rollout import RolloutEngine

DEFAULT_METHODS: Final = (
    "grpo", "drpo", "domain_only", "clusters_only", "reinforce_plus_plus", "dr_grpo",
)  # fmt: skip
"""What runs unless others are named; ``name@2`` is a method at twice the learning rate."""

SUPERVISED: Final = "supervised"
FIGURES: Final = ("macro_f1", "exact_match")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything: ``patients`` is the share of the corpora's patients.

    The last ``drawn_answers`` of the supervised steps teach the form alone, or there is little left to learn.
    """

    supervised_steps: int = 200
    drawn_answers: float = 0.2
    steps: int = 40
    questions: int = 32
    completions: int = 8
    learning_rate: float = 3e-4
    patients: float = 1.0

    @classmethod
    def quick(cls) -> Sizes:
        """Sizes that show that all of it runs, and nothing else."""
        return cls(supervised_steps=3, steps=2, questions=4, completions=2, patients=0.15)


def run_tiny(
    out: Path, seeds: Sequence[int], methods: Sequence[str], sizes: Sizes, engine: str, steps: int | None
) -> list[results.Line]:
    """Every run of the methods and seeds, those in ``out`` as they stand there, the others run and appended.

    Raises:
        UsageError: a method is none of those, or is not for this task.
    """
    chosen = [parse_method(name) for name in methods]
    sizes = sizes if steps is None else replace(sizes, steps=steps)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "tiny.jsonl"
    key = {"task": "tiny", "sizes": asdict(sizes), "engine": engine}
    train = build(out / f"uneven-{sizes.patients:g}", "uneven", _share(UNEVEN, sizes.patients), seed=3)
    held_out = build(out / f"even-{sizes.patients:g}", "even", _share(EVEN, sizes.patients), seed=4)
    for seed in seeds:
        lines = results.read(file)
        done = {name for name in (SUPERVISED, *methods) if results.by_seed(lines, **key, method=name, seed=seed)}
        if done >= {SUPERVISED, *methods}:
            continue
        with _Seed(out, seed, sizes, engine, train, held_out) as of_seed:
            if SUPERVISED not in done:
                results.append(file, [key | of_seed.supervised()])
            for name, (method, factor) in zip(methods, chosen, strict=True):
                if name not in done:
                    results.append(file, [key | of_seed.run(name, method, factor)])
    wanted = {SUPERVISED, *methods}
    return [
        line for line in results.read(file)
        if all(line[k] == v for k, v in key.items()) and line["method"] in wanted and line["seed"] in seeds
    ]  # fmt: skip


def parse_method(name: str) -> tuple[str, float]:
    """``grpo@2`` as the method's name and the factor of its learning rate; raises ``UsageError`` for what is none."""
    method, at, factor = name.partition("@")
    known = [known for known in METHODS if known != BINS]
    if method not in known:
        raise UnknownNameError(f"There is no method {method!r} of the tiny model.{nearest(method, known)}")
    try:
        value = float(factor) if at else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise UsageError(f"{name}: what stands behind @ is the learning rate's factor, a number above 0.")
    return method, value


class _Seed:
    """Model, supervised weights and engine of one seed."""

    def __init__(self, out: Path, seed: int, sizes: Sizes, engine: str, train: Path, held_out: Path) -> None:
        self._folder, self._seed, self._sizes, self._engine_name = out / f"seed-{seed}", seed, sizes, engine
        self._train, self._held_out = train, held_out
        self._folder.mkdir(exist_ok=True)
        recipe = self._recipe(BASE, 1.0)
        if not (self._folder / "model" / "config.json").exists():
            pieces = fixed_pieces(Corpus(recipe.data), recipe.prompt.template, CONVENTIONS["qwen2_5_vl"])
            write_tiny_model(self._folder / "model", answer_pieces=pieces, seed=seed)
        self._assembly = assemble(recipe)
        self._judged = replace(self._assembly, corpus=Corpus(recipe.data.model_copy(update={"corpus": str(held_out)})))
        self._weights = self._supervised_weights()
        self._engine: RolloutEngine = start_engine(self._assembly)

    def __enter__(self) -> _Seed:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def supervised(self) -> results.Line:
        """The line of the weights that every method starts from."""
        self._start()
        self._reset()
        return self._line(SUPERVISED, self._figures(), [])

    def run(self, name: str, method: str, factor: float) -> results.Line:
        """The line of one method, trained and judged."""
        self._start()
        assembly = replace(self._assembly, recipe=self._recipe(dict(METHODS[method].recipe), factor))
        path = self._folder / name
        folder = RunFolder(path, train_recipe_text(assembly.recipe), assembly.corpus.manifest_sha256)
        self._reset()
        Trainer(assembly, self._engine, folder, _quiet).run()
        rewards = [round(line["reward"], 4) for line in folder.lines("metrics")]
        line = self._line(name, self._figures(), rewards)
        shutil.rmtree(path / "checkpoints", ignore_errors=True)
        _say(f"seed {self._seed}  {name}  {line['seconds']:.0f} s  reward {rewards[-1]:.3f}")
        return line

    def _recipe(self, method: Mapping[str, Any], factor: float) -> TrainRecipe:
        sizes = self._sizes
        return TrainRecipe.model_validate(
            {
                "name": "drpo-vs-grpo",
                "seed": self._seed,
                "model": {"path": str(self._folder / "model"), "dtype": "float32", "gradient_checkpointing": False},
                "data": {
                    "corpus": str(self._train), "min_pixels": 7056, "max_pixels": 12544, "max_prompt_tokens": 512,
                    "ecg_layout": "single",
                },
                "prompt": {"template": "short"},
                "method": dict(method),
                "rewards": {"weights": {"answer": 1.0}},
                "rollout": {
                    "engine": self._engine_name, "completions": sizes.completions, "questions": sizes.questions,
                    "max_tokens": 16, "top_p": 1.0,
                },
                "optimiser": {
                    "learning_rate": sizes.learning_rate * factor, "betas": [0.9, 0.95], "weight_decay": 0.0,
                    "questions_per_update": sizes.questions // 2,
                },
                "supervised": {
                    "steps": sizes.supervised_steps, "batch": 32, "learning_rate": 2e-3,
                    "drawn_answers": sizes.drawn_answers,
                },
                "run": {
                    "steps": sizes.steps, "evaluate_every": sizes.steps, "evaluation_rows": 1,
                    "evaluation_temperature": 0.0, "checkpoint_every": sizes.steps, "keep_checkpoints": 1,
                    "sampled_completions": 0,
                },
            }
        )  # fmt: skip

    def _supervised_weights(self) -> dict[str, torch.Tensor]:
        file = (
            self._folder
            / f"supervised-{self._sizes.supervised_steps}-{self._sizes.drawn_answers:g}-{self._sizes.patients:g}.pt"
        )
        if not file.exists():
            supervise(self._assembly, _quiet)
            weights = {
                name: value.detach().clone() for name, value in trained_parameters(self._assembly.policy.model).items()
            }
            part = file.with_suffix(".part")
            torch.save(weights, part)
            part.replace(file)
        return dict(torch.load(file, weights_only=True))

    def _reset(self) -> None:
        """Policy and engine at the supervised weights."""
        with torch.no_grad():
            for name, parameter in trained_parameters(self._assembly.policy.model).items():
                parameter.copy_(self._weights[name])
        self._engine.load_weights(state_for_engine(self._assembly.policy.model))

    def _figures(self) -> dict[str, dict[str, float]]:
        """Figures by domain on the held-out corpus, all of whose train split is of patients that no training saw."""
        found, _ = evaluate(self._judged, self._engine, Split.TRAIN, replicates=0)
        return {
            domain: {name: scores.figures[name].value for name in FIGURES} for domain, scores in found.domains.items()
        }

    def _start(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def _line(self, name: str, figures: dict[str, dict[str, float]], rewards: list[float]) -> results.Line:
        seconds, cpu_seconds = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        line = {"method": name, "seed": self._seed, "domains": figures, "rewards": rewards}
        if name == SUPERVISED:
            rows = self._assembly.corpus.rows(Split.TRAIN)
            line["rows"] = dict(Counter(str(rows.example(place).domain) for place in range(len(rows))))
        return line | {"seconds": seconds, "cpu_seconds": cpu_seconds}


def _share(patients: Mapping[str, int], share: float) -> dict[str, int]:
    return {name: max(4, round(count * share)) for name, count in patients.items()}


def _quiet(_: dict[str, float]) -> None:
    """The runs' own figures are in their folders."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
