"""The machine of a run, and whether what the arithmetic says fits on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qoq_train.doctor.findings import Finding
from qoq_train.doctor.phases import (
    GIB,
    Phase,
    RunSize,
    engine_share_range,
    host_bytes,
    most_micro_tokens,
    phases,
    standing,
    usable_bytes,
)

if TYPE_CHECKING:
    from qoq_train.doctor.inputs import Inputs
    from qoq_train.recipe import TrainRecipe


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the run is to be: ``devices`` in all, ``devices_here`` of them on this machine, each of ``device_bytes``.

    Without a GPU a device is a process on this machine, and ``device_bytes`` its share of the host's memory.
    ``is_assumed`` where a person said so, and this machine was not asked.
    """

    name: str
    devices: int
    devices_here: int
    device_bytes: int
    host_bytes: int
    has_gpu: bool
    is_assumed: bool = False


def this_machine() -> Machine:
    """The machine as it is, and as many processes as the launcher's environment says (``WORLD_SIZE``)."""
    import torch

    world = _positive("WORLD_SIZE")
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        seen = torch.cuda.device_count()
        here = min(_positive("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else world, seen)
        least = min(range(seen), key=lambda i: torch.cuda.get_device_properties(i).total_memory)
        facts = torch.cuda.get_device_properties(least)
        return Machine(facts.name, world, here, facts.total_memory, host, has_gpu=True)
    return Machine("no GPU", world, world, host // world, host, has_gpu=False)


def assumed_machine(devices: int, device_gib: float) -> Machine:
    """GPUs that are not here: how many, and the memory of each; the host's memory is not judged."""
    name = f"{device_gib:g} GiB GPU, assumed"
    return Machine(name, devices, devices, int(device_gib * GIB), 0, has_gpu=True, is_assumed=True)


def run_size(inputs: Inputs, machine: Machine) -> RunSize:
    """The recipe and the machine as the arithmetic takes them."""
    from qoq_train.training.method import needs_reference

    recipe = inputs.recipe
    kept = 4 if recipe.model.dtype == "float32" else 2
    is_sharded = machine.devices > 1
    named = recipe.distributed.compute_dtype or ("bfloat16" if machine.has_gpu else recipe.model.dtype)
    computed = (4 if named == "float32" else 2) if is_sharded else kept
    return RunSize(
        model=inputs.size,
        devices=machine.devices,
        device_bytes=machine.device_bytes,
        has_gpu=machine.has_gpu,
        value_bytes=kept,
        compute_bytes=computed,
        engine_bytes=computed,
        has_reference_copy=recipe.model.lora is None and needs_reference(recipe.method),
        has_engine=recipe.rollout.engine == "vllm",
        engine_share=recipe.rollout.gpu_memory,
        sequence_tokens=recipe.data.max_prompt_tokens + recipe.rollout.max_tokens,
        micro_tokens=recipe.optimiser.micro_tokens,
        picture_tokens=inputs.picture_tokens,
        completions=recipe.rollout.completions,
        checkpointing=recipe.model.gradient_checkpointing,
        supervised_tokens=recipe.supervised.batch * recipe.data.max_prompt_tokens if recipe.supervised.steps else 0,
    )


def check_device(machine: Machine, recipe: TrainRecipe) -> Iterator[Finding]:
    """Which devices, and whether there are as many as processes."""
    kind = f"{machine.devices} × {machine.name}" if machine.has_gpu else f"no GPU, {machine.devices} process(es)"
    yield Finding("device", "fine", f"{kind}, {machine.device_bytes / GIB:.1f} GiB each")
    asked = _positive("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else machine.devices_here
    if machine.has_gpu and not machine.is_assumed and asked > machine.devices_here:
        yield Finding(
            "device", "fails", f"{asked} processes are to start here, and {machine.devices_here} GPUs are seen"
        )
    if recipe.rollout.questions % machine.devices:
        what = f"{recipe.rollout.questions} questions do not share out evenly over {machine.devices}"
        yield Finding("device", "warns", what, "rollout.questions")


def check_memory(run: RunSize, recipe: TrainRecipe) -> Iterator[Finding]:
    """Whether each phase fits into a device, and which key to change where it does not."""
    usable = usable_bytes(run)
    least, _ = engine_share_range(run)
    if run.has_engine and run.has_gpu and run.engine_share < least:
        what = f"the engine needs {least * run.device_bytes / GIB:.1f} GiB for its weights and one sequence"
        yield Finding("memory", "fails", f"{what}: set it to {least + 0.005:.2f} or more", "rollout.gpu_memory")
    for phase in phases(run):
        told = f"{phase.name}: {phase.bytes / GIB:.1f} GiB of {usable / GIB:.1f}"
        if phase.bytes <= usable:
            yield Finding("memory", "fine", f"{told}, by arithmetic")
            continue
        key, hint = _advice(phase, run, recipe)
        yield Finding("memory", "fails", f"{told} do not fit: {hint}", key)


def check_host(run: RunSize, machine: Machine) -> Iterator[Finding]:
    """Whether the processes of this machine can load the model, each by itself."""
    if machine.is_assumed or not machine.has_gpu:
        return
    needed = host_bytes(run, machine.devices_here)
    have, processes = machine.host_bytes / GIB, machine.devices_here
    what = f"{processes} process(es) take up to {needed / GIB:.0f} GiB of the host's {have:.0f}"
    yield Finding("host", "fine" if needed <= machine.host_bytes else "warns", what)


def _advice(phase: Phase, run: RunSize, recipe: TrainRecipe) -> tuple[str, str]:
    """The key to change first, and how."""
    taken = sum(size for _, size in standing(run))
    least, most = engine_share_range(run)
    if taken > usable_bytes(run) or phase.name == "weights" or (run.has_gpu and run.has_engine and least > most):
        smaller = ("model.lora", "train adapters") if recipe.model.lora is None else ("model.path", "a smaller model")
        return smaller[0], f"{taken / GIB:.1f} GiB stand at all times; take {smaller[1]} or more devices"
    if phase.name == "supervised":
        return "supervised.batch", "lower it"
    if phase.name == "update":
        return _advice_for_update(run)
    if run.has_gpu and run.has_engine:
        return "rollout.gpu_memory", f"set it between {least + 0.005:.2f} and {most - 0.005:.2f}"
    return "rollout.max_tokens", "shorten completions, or take more memory"


def _advice_for_update(run: RunSize) -> tuple[str, str]:
    micro = most_micro_tokens(run)
    if not run.checkpointing:
        also = f", or optimiser.micro_tokens to {micro} or less" if micro >= run.sequence_tokens else ""
        return "model.gradient_checkpointing", f"set it to true{also}"
    if micro >= run.sequence_tokens:
        return "optimiser.micro_tokens", f"set it to {micro} or less"
    what = f"no more than {micro} tokens pass at a time, and a sequence is up to {run.sequence_tokens}"
    return "rollout.max_tokens", f"{what}: shorten completions and prompts, train adapters, or take more devices"


def _positive(name: str) -> int:
    text = os.environ.get(name, "1")
    return max(1, int(text)) if text.isdigit() else 1
