"""A command's whole run: its stages in their order, where it is written, and what is left of it when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qoq_data.errors import UsageError
from qoq_train.models.loading import load_policy, transformers_model
from qoq_train.models.weights import check_weights, state_for_engine, take_weights
from qoq_train.training.assembly import Assembly, assemble, start_engine
from qoq_train.training.run_folder import RunFolder
from qoq_train.training.sft import supervise
from qoq_train.training.trainer import Trainer

if TYPE_CHECKING:
    import torch

    from qoq_train.recipe import TrainRecipe

Log = Callable[[dict[str, float]], None]
"""Takes the figures of a step or an evaluation; ``supervised`` is among those of a supervised step."""

SUPERVISED = "supervised"
MODEL = "model"


def train(recipe: TrainRecipe, recipe_text: str, out: Path, log: Log) -> bool:
    """Run a recipe whole: supervised steps where it has any, then on-policy steps; or go on where it was.

    ``log`` is given every step's figures. Gives whether this process is the one to speak: of those that a launcher
    started all must call this, and one is. Raises what ``assemble``, ``supervise`` and ``Trainer.run`` do.
    """
    assembly = assemble(recipe)
    ranks = assembly.ranks
    folder = RunFolder.of_ranks(ranks, out, recipe_text, assembly.corpus.manifest_sha256)
    has_supervised = ranks.from_first((out / SUPERVISED).is_dir())
    # Adapters are not in what the supervised stage left, only in checkpoints.
    can_go_on = has_supervised and (recipe.model.lora is None or ranks.from_first(folder.has_checkpoints))
    if recipe.supervised.steps and not can_go_on:
        _supervise(assembly, folder, log)
    elif has_supervised:
        load_model(assembly, out / SUPERVISED)
    engine = start_engine(assembly)
    try:
        Trainer(assembly, engine, folder, log).run()
        engine.sleep()
        write_model(assembly, folder, MODEL)
    finally:
        engine.close()  # last: as it ends, vLLM ends the ranks' connections too
    ranks.close()
    return ranks.is_first


def train_supervised(recipe: TrainRecipe, recipe_text: str, out: Path, log: Log) -> bool:
    """Run a recipe's supervised steps alone; as ``train``."""
    if not recipe.supervised.steps:
        raise UsageError("supervised.steps of the recipe is 0: there is nothing to do.")
    assembly = assemble(recipe)
    _supervise(assembly, RunFolder.of_ranks(assembly.ranks, out, recipe_text, assembly.corpus.manifest_sha256), log)
    assembly.ranks.close()
    return assembly.ranks.is_first


def write_model(assembly: Assembly, folder: RunFolder, name: str) -> None:
    """The model in transformers' layout, adapters merged, so that anything can load it; all ranks together."""
    state: dict[str, torch.Tensor] = {}
    for key, tensor in state_for_engine(assembly.policy.model):
        if folder.writes:
            state[key] = tensor.cpu()

    def write(path: Path) -> None:
        transformers_model(assembly.policy.model).save_pretrained(path, state_dict=state)
        (assembly.policy.processor or assembly.policy.tokenizer).save_pretrained(path)

    assembly.ranks.each(lambda: folder.export(name, write))


def load_model(assembly: Assembly, path: Path) -> None:
    """Put the weights of a folder that ``write_model`` wrote into the policy; only the first rank reads it.

    Adapters and what they stand on stay as they are. Raises ``UsageError`` where they are another model's.
    """

    def read() -> dict[str, torch.Tensor] | None:
        if not assembly.ranks.is_first:
            return None
        choice = replace(assembly.policy.choice, path=str(path), lora=None, gradient_checkpointing=False)
        return dict(state_for_engine(load_policy(choice).model))

    given = assembly.ranks.each(read)
    assembly.ranks.each(lambda: None if given is None else check_weights(assembly.policy.model, given))
    take_weights(assembly.policy.model, given)


def _supervise(assembly: Assembly, folder: RunFolder, log: Log) -> None:
    def told(figures: dict[str, float]) -> None:
        folder.log(SUPERVISED, figures)
        log({"supervised": 1.0, **figures})

    if folder.writes:
        (folder.path / f"{SUPERVISED}.jsonl").unlink(missing_ok=True)
    supervise(assembly, told)
    folder.close()
    write_model(assembly, folder, SUPERVISED)
