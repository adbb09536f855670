"""What a run takes of a device's memory, by arithmetic, phase by phase, before anything is loaded.

A step passes three phases on each device: completions are *generated*, the policy is *updated*, and its *weights* are
handed to the engine. What stands in each is a sum of parts, each the value of one function here. Weights, gradients
and the optimiser's states are shared out over the devices (FSDP2) in the precision in which they are kept; a pass is
made in its own; the engine is whole on each device, in a third.

The parts that follow from counts (weights, gradients, states, caches) are exact. Activations are counted from what the
layers of these models keep for their backward pass. ``RUNTIME_BYTES``, ``ASLEEP_BYTES`` and ``USABLE_SHARE`` are
assumptions about libraries, allocators and fragments, on the safe side as far as is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GIB: Final = 1 << 30
RUNTIME_BYTES: Final = 3 * GIB // 2
"""Of a process: the device's context and the libraries' work spaces."""
ASLEEP_BYTES: Final = GIB
"""Of an engine that sleeps on a GPU: its graphs and work spaces stay."""
USABLE_SHARE: Final = 0.95
"""Of a device's memory; the rest is lost between pieces."""
LOGIT_VALUES: Final = 1 << 25
"""Logits that the scoring forms at one time."""
CPU_CACHE_BYTES: Final = GIB
"""Of an engine without a GPU."""
ADAPTER_VALUE_BYTES: Final = 4
"""Adapters are held in float32 over whatever weights."""
CHUNK_BYTES: Final = 32 << 20
"""Weights that are handed to the engine at one time."""


@dataclass(frozen=True, slots=True)
class TowerSize:
    """Blocks of one kind: ``hidden``, ``intermediate``, ``query`` and ``key_value`` are widths in values."""

    blocks: int
    hidden: int
    intermediate: int
    query: int
    key_value: int


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Counts of a model: parameters of all, of what is trained, and of adapters.

    ``largest_weight``, ``largest_block`` and ``root`` are parameters of the largest matrix, of the largest block and of
    everything outside blocks. ``vision`` is None for a text model; ``patches_per_token`` is then 0.
    """

    parameters: int
    trained: int
    adapters: int
    largest_weight: int
    largest_block: int
    root: int
    vocabulary: int
    text: TowerSize
    vision: TowerSize | None = None
    patches_per_token: int = 0
    vision_is_trained: bool = False


@dataclass(frozen=True, slots=True)
class RunSize:
    """What of a recipe and a machine decides how much memory is taken.

    ``value_bytes`` are those of a kept weight, ``compute_bytes`` of one in a pass, ``engine_bytes`` of the engine's.
    ``sequence_tokens`` are a prompt and its completion, ``picture_tokens`` the largest picture, ``micro_tokens`` and
    ``supervised_tokens`` (0 without such steps) a pass.
    """

    model: ModelSize
    devices: int
    device_bytes: int
    has_gpu: bool
    value_bytes: int
    compute_bytes: int
    engine_bytes: int
    has_reference_copy: bool
    has_engine: bool
    engine_share: float
    sequence_tokens: int
    micro_tokens: int
    picture_tokens: int
    completions: int
    checkpointing: bool
    supervised_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """Parts of one phase in bytes on one device, in the order in which they come about."""

    name: str
    parts: tuple[tuple[str, int], ...]

    @property
    def bytes(self) -> int:
        """All parts."""
        return sum(size for _, size in self.parts)


def shared(values: int, value_bytes: int, devices: int) -> int:
    """Bytes on one device of values shared out over all: ceil(values / devices) × value_bytes."""
    return -(-values // devices) * value_bytes


def adamw_bytes(trained: int, value_bytes: int, devices: int) -> int:
    """Two moments for each trained value, in its own precision, shared out."""
    return 2 * shared(trained, value_bytes, devices)


def gathered_bytes(model: ModelSize, compute_bytes: int, devices: int) -> int:
    """What sharding puts together for a pass: two blocks (one computes, the next arrives) and all outside blocks.

    Nothing on one device, where the weights are whole.
    """
    return 0 if devices == 1 else (2 * model.largest_block + model.root) * compute_bytes


def reduced_bytes(model: ModelSize, compute_bytes: int, devices: int) -> int:
    """Gradients on their way to their owners: the larger of a block and what is outside blocks, as computed, and in
    float32, in which they are added up. Nothing on one device or where adapters alone have gradients."""
    if devices == 1 or model.adapters:
        return 0
    return max(model.largest_block, model.root) * (compute_bytes + (4 if compute_bytes != 4 else 0))


def handed_over_bytes(model: ModelSize, value_bytes: int, engine_bytes: int) -> int:
    """Copies while the engine takes the weights over: a chunk, and the largest weight gathered and rounded."""
    return CHUNK_BYTES + model.largest_weight * (value_bytes + engine_bytes)


def block_bytes(tower: TowerSize, compute_bytes: int) -> int:
    """What a block keeps of one token for its backward pass.

    4 × intermediate (gate, its activation, up, their product), 5 × query (queries, keys and values repeated to the
    heads, the attention's result and that in the order of the projection), and for each of the two norms its input in
    float32, the normalised and the scaled values: compute_bytes · (4 I + 5 Q) + 2 · (4 + 2 · compute_bytes) · H.
    """
    inner = compute_bytes * (4 * tower.intermediate + 5 * tower.query)
    return inner + 2 * (4 + 2 * compute_bytes) * tower.hidden


def activation_bytes(tower: TowerSize, tokens: int, value_bytes: int, *, checkpointing: bool) -> int:
    """What a tower keeps of a forward pass, and the gradients that pass through one block.

    With checkpointing each block keeps its input, value_bytes · H a token, and one block is formed again whole; else
    every block keeps all. Gradients: value_bytes · (3 I + 2 H) a token.
    """
    one = block_bytes(tower, value_bytes)
    kept = tower.blocks * tower.hidden * value_bytes + one if checkpointing else tower.blocks * one
    return tokens * (kept + value_bytes * (3 * tower.intermediate + 2 * tower.hidden))


def logit_bytes(value_bytes: int) -> int:
    """A chunk of logits: as the head gives it, and in float32 itself, over temperature, without banned ids, and the
    gradients of the last two."""
    return LOGIT_VALUES * (value_bytes + 5 * 4)


def picture_patches(model: ModelSize, tokens: int, picture_tokens: int, completions: int) -> int:
    """Patches that the vision tower sees in a pass: rows of one question share its pictures.

    So tokens / completions of pictures' tokens at most, but one whole picture at least, and never more than the pass
    holds; times the patches of a token.
    """
    if model.vision is None:
        return 0
    seen = min(max(-(-tokens // completions), picture_tokens), max(tokens, picture_tokens))
    return seen * model.patches_per_token


def cache_bytes(model: ModelSize, tokens: int, value_bytes: int) -> int:
    """Keys and values of so many tokens: 2 × blocks × key_value × value_bytes each."""
    return 2 * model.text.blocks * model.text.key_value * value_bytes * tokens


def engine_least_bytes(run: RunSize) -> int:
    """The least that the engine can do with: all weights, the cache of one sequence, and one pass of it."""
    working = run.sequence_tokens * run.engine_bytes * (4 * run.model.text.intermediate + 4 * run.model.text.hidden)
    weights = run.model.parameters * run.engine_bytes
    return weights + cache_bytes(run.model, run.sequence_tokens, run.engine_bytes) + working


def standing(run: RunSize) -> tuple[tuple[str, int], ...]:
    """What stands on a device in every phase from the second step on."""
    model, value = run.model, run.value_bytes
    trained_value = ADAPTER_VALUE_BYTES if model.adapters else value
    parts = [("weights", shared(model.parameters, value, run.devices))]
    if model.adapters:
        parts.append(("adapters", shared(model.adapters, ADAPTER_VALUE_BYTES, run.devices)))
    parts.append(("AdamW's states", adamw_bytes(model.trained, trained_value, run.devices)))
    if run.has_reference_copy:
        parts.append(("reference model", shared(model.parameters, value, run.devices)))
    parts.append(("runtime", RUNTIME_BYTES))
    return tuple(parts)


def phases(run: RunSize) -> tuple[Phase, ...]:
    """Every phase of a step, and the supervised one where the run has it."""
    found = [Phase("generate", (*standing(run), *_engine(run, generating=True)))]
    found.append(Phase("update", (*standing(run), *_engine(run), *_pass(run, run.micro_tokens, run.completions))))
    if run.has_engine:
        engine = run.model.parameters * run.engine_bytes + (ASLEEP_BYTES if run.has_gpu else CPU_CACHE_BYTES)
        copies = handed_over_bytes(run.model, run.value_bytes, run.engine_bytes)
        found.append(Phase("weights", (*standing(run), ("engine's weights", engine), ("copies on the way", copies))))
    if run.supervised_tokens:
        before_engine = tuple(part for part in standing(run) if part[0] != "reference model")
        found.insert(0, Phase("supervised", (*before_engine, *_pass(run, run.supervised_tokens, 1))))
    return tuple(found)


def usable_bytes(run: RunSize) -> int:
    """What of a device may be taken."""
    return int(run.device_bytes * USABLE_SHARE)


def most_micro_tokens(run: RunSize) -> int:
    """The largest ``optimiser.micro_tokens`` with which an update fits; 0 where none does."""
    low, high = 0, 1 << 24
    while low < high:
        middle = (low + high + 1) // 2
        parts = (*standing(run), *_engine(run), *_pass(run, middle, run.completions))
        low, high = (middle, high) if Phase("", parts).bytes <= usable_bytes(run) else (low, middle - 1)
    return low


def engine_share_range(run: RunSize) -> tuple[float, float]:
    """The least and the most that ``rollout.gpu_memory`` can be; the first is above the second where none works."""
    taken = sum(size for _, size in standing(run))
    return engine_least_bytes(run) / run.device_bytes, (usable_bytes(run) - taken) / run.device_bytes


def host_bytes(run: RunSize, devices_here: int) -> int:
    """Of the machine's own memory, beside GPUs: each process loads all weights there, and 2 GiB of libraries and rows;
    later its sleeping engine keeps its weights there."""
    return devices_here * (run.model.parameters * max(run.value_bytes, run.engine_bytes) + 2 * GIB)


def checkpoint_bytes(model: ModelSize, value_bytes: int, keep: int) -> int:
    """Disk of a run: ``keep`` checkpoints and one on its way (trained weights and two moments), and the model twice
    (written whole before the old one goes)."""
    trained_value = ADAPTER_VALUE_BYTES if model.adapters else value_bytes
    return (keep + 1) * 3 * model.trained * trained_value + 2 * model.parameters * value_bytes


def _engine(run: RunSize, *, generating: bool = False) -> tuple[tuple[str, int], ...]:
    if not run.has_engine:
        cache = cache_bytes(run.model, run.completions * run.sequence_tokens, run.compute_bytes)
        copy = run.model.parameters * run.engine_bytes if run.devices > 1 else 0
        parts = (("engine's copy", copy), ("cache", cache if generating else 0))
        return tuple(part for part in parts if part[1])
    if not run.has_gpu:  # it cannot sleep there
        return (("engine", run.model.parameters * run.engine_bytes + CPU_CACHE_BYTES),)
    return (("engine", int(run.device_bytes * run.engine_share)) if generating else ("engine asleep", ASLEEP_BYTES),)


def _pass(run: RunSize, tokens: int, completions: int) -> tuple[tuple[str, int], ...]:
    model, value = run.model, run.compute_bytes
    trained_value = ADAPTER_VALUE_BYTES if model.adapters else run.value_bytes
    parts = [
        ("gradients", shared(model.trained, trained_value, run.devices)),
        ("gathered weights", gathered_bytes(model, value, run.devices)),
        ("gradients on the way", reduced_bytes(model, value, run.devices)),
        ("activations", activation_bytes(model.text, tokens, value, checkpointing=run.checkpointing)),
    ]
    if model.vision is not None:
        patches = picture_patches(model, tokens, run.picture_tokens, completions)
        seen = patches * block_bytes(model.vision, value)  # without gradients one block at a time
        if model.vision_is_trained:
            seen = activation_bytes(model.vision, patches, value, checkpointing=run.checkpointing)
        parts.append(("vision activations", seen))
    return (*((name, size) for name, size in parts if size), ("logits", logit_bytes(value)))
