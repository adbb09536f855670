"""A model's new weights into vLLM: in the trainer's process, over HTTP to a server, and by way of a checkpoint on disk.

Sizes are the tiny vision-language model and the same with random weights of about a hundred million parameters, in
float32. The plain way writes the weights to a safetensors file, the tied head under its own name too, and lets the
engine read it from there; ``save_pretrained`` alone leaves that name out, and the engine with the old head. The limit
is a copy of the same bytes in memory. Each way ends with an engine whose caches are empty and whose log-probability of
a given completion is the trainer's, which is looked at once a size. The server is a process of its own on the same
machine, so its figure has the loopback address's speed and no network's.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.harness import Result, seconds_in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qoq_train.models.loading import Policy

UNIT = "s"
COLUMNS = ("model", "way", UNIT, "MB/s", "times plain", "of the limit")
WAYS = {"copy": "a copy in memory", "process": "ours, in the process", "server": "ours, a server",
        "plain": "a file, read by the engine"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one model: its weights in bytes, and seconds by way."""

    name: str
    weight_bytes: int
    seconds: dict[str, float]

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of the table."""
        return [
            (self.name, told, f"{self.seconds[way]:.3f}", f"{self.weight_bytes / 1e6 / self.seconds[way]:,.0f}",
             f"{self.seconds['plain'] / self.seconds[way]:.1f}", f"{self.seconds['copy'] / self.seconds[way]:.3f}")
            for way, told in WAYS.items()
        ]  # fmt: skip


def run(quick: bool) -> Result:
    """Measure every way at each size, in turn; the ratio is that of the server at the largest."""
    if importlib.util.find_spec("vllm") is None:
        print("weight_sync measures vLLM, which is not installed: nothing was measured.")
        raise SystemExit(0)
    from qoq_train.models.tiny import TinySizes

    torch.set_num_threads(1)
    large = TinySizes(
        hidden=768, layers=12, heads=12, key_value_heads=12, intermediate=3072, vision_hidden=384, vision_layers=4,
        vision_heads=6, vision_intermediate=1536,
    )  # fmt: skip
    sizes = {"tiny": TinySizes()} if quick else {"tiny": TinySizes(), "large": large}
    with TemporaryDirectory() as folder:
        measured = [_measure(Path(folder) / name, chosen, 2 if quick else 5) for name, chosen in sizes.items()]
    last = measured[-1].seconds
    rows = tuple(row for one in measured for row in one.rows())
    return Result(
        "weight_sync", last["server"], last["plain"], last["copy"], last["plain"] / last["server"], UNIT, COLUMNS, rows
    )


def _measure(folder: Path, sizes: Any, rounds: int) -> Measured:
    from safetensors.torch import save_file

    from qoq_train.models.loading import ModelChoice, load_policy
    from qoq_train.models.tiny import write_tiny_model
    from qoq_train.models.weights import state_for_engine
    from qoq_train.rollout.vllm_engine import VllmChoice, VllmEngine
    from qoq_train.rollout.vllm_server import VllmServerEngine

    write_tiny_model(folder, answer_pieces=(), sizes=sizes)
    policy = load_policy(ModelChoice(str(folder), dtype="float32"))
    weights = dict(state_for_engine(policy.model))
    checkpoint = folder.with_name(f"{folder.name}-checkpoint")
    shutil.copytree(folder, checkpoint)
    copies = {name: torch.empty_like(tensor) for name, tensor in weights.items()}

    def copy() -> None:
        for name, tensor in weights.items():
            copies[name].copy_(tensor)

    with _server(folder) as address:
        engine = VllmEngine(policy, VllmChoice(max_model_tokens=256, max_sequences=4, pictures_per_prompt=1))
        client = VllmServerEngine(policy, [address])

        def plain() -> None:
            alone = {name: tensor.clone() if name == "lm_head.weight" else tensor for name, tensor in weights.items()}
            save_file(alone, checkpoint / "model.safetensors")
            _reload_from_disk(engine, checkpoint)

        ways = {
            "copy": copy,
            "process": lambda: engine.load_weights(state_for_engine(policy.model)),
            "server": lambda: client.load_weights(state_for_engine(policy.model)),
            "plain": plain,
        }
        try:
            _change(policy)
            _check(policy, {"process": (engine, ways["process"]), "server": (client, ways["server"])})
            _change(policy)
            _check(policy, {"plain": (engine, plain)})
            seconds = seconds_in_turn(ways, rounds)
        finally:
            client.close()
            engine.close()
    parameters = sum(one.numel() for one in policy.model.parameters())
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    return Measured(f"{parameters / 1e6:.1f} M parameters", size, seconds)


def _reload_from_disk(engine: Any, checkpoint: Path) -> None:
    llm = engine._llm  # noqa: SLF001  (the plain way does without our engine)
    llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()


def _change(policy: Policy) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))


def _check(policy: Policy, engines: dict[str, tuple[Any, Any]]) -> None:
    """Each way hands over what the trainer has."""
    from qoq_train.models.scoring import Scorer, encode_rows, score_rows
    from qoq_train.rollout import Prompt, largest_gap

    prompts, completions = [Prompt("row", (40, 41, 42))], [[7, 8, 9, 10]]
    encoded, rows = encode_rows(policy, prompts, [completions])
    scored = score_rows(Scorer(policy), policy, encoded, rows, token_budget=4096)
    wanted = [values.tolist() for values in scored]
    for way, (engine, hand_over) in engines.items():
        hand_over()
        gap = largest_gap(engine.log_probabilities(prompts, completions), wanted)
        assert gap < 1e-2, f"{way}: the engine is {gap} off the trainer"


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A rollout server of a model in a process of its own; its address."""
    command = [sys.executable, "-m", "qoq_train.cli", "serve", str(folder), "--port", "0", "--dtype", "float32",
               "--max-model-tokens", "256", "--max-sequences", "4", "--pictures", "1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        told = running.stdout.readline().split()
        assert told, "the server did not start"
        try:
            yield told[-1]
        finally:
            running.terminate()
