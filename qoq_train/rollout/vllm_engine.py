"""Rollout by vLLM inside the trainer's process: one engine a rank, its weights handed over in memory.

vLLM is told by environment variables of this process, set when an engine starts and nothing else has set them:
``VLLM_ENABLE_V1_MULTIPROCESSING=0`` keeps the engine in the process, without which weights cannot be handed over.
Without a GPU also ``TORCHDYNAMO_DISABLE=1`` (nothing is compiled: the start takes seconds, and so does the first
request), ``VLLM_CPU_KVCACHE_SPACE`` in GiB, ``VLLM_LOGGING_LEVEL=ERROR`` (a warning about threads would flood the
log) and, for a model in a folder, ``HF_HUB_OFFLINE=1``.
"""

from __future__ import annotations

import os
import random
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from qoq_data.errors import MissingExtraError
from qoq_train.models.loading import Policy, transformers_model
from qoq_train.models.weights import check_complete, engine_weight_names
from qoq_train.rollout import Completion, Prompt, RolloutError, Sampling, seed_of_prompt, weight_chunks
from qoq_train.rollout.worker import WORKER_EXTENSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["RolloutError", "VllmChoice", "VllmEngine", "sampled_values", "set_environment"]

_LEAST_BIAS: Final = -100.0  # the lowest that vLLM takes; e^-100 is 0 beside any probability in float32


@dataclass(frozen=True, slots=True)
class VllmChoice:
    """How the engine is held: ``gpu_memory`` is its share of a GPU, ``cpu_cache_gib`` the cache without one.

    ``max_model_tokens`` bounds prompt and completion together, pictures expanded; ``pictures_per_prompt`` bounds
    pictures; ``max_sequences`` are completed at one time.
    """

    max_model_tokens: int = 8192
    max_sequences: int = 256
    pictures_per_prompt: int = 16
    gpu_memory: float = 0.5
    cpu_cache_gib: int = 1


class VllmEngine:
    """A ``RolloutEngine`` by vLLM in this process, for a policy that ``load_policy`` loaded.

    It starts with the weights at the policy's path, and completes nothing before ``load_weights`` was called once: a
    resumed run would otherwise draw its first completions from weights that are not the policy's.

    Raises:
        MissingExtraError: vLLM is not installed.
    """

    def __init__(self, policy: Policy, choice: VllmChoice = VllmChoice()) -> None:
        has_gpu = torch.cuda.is_available()
        set_environment(has_gpu=has_gpu, is_folder=Path(policy.choice.path).is_dir(), choice=choice)
        self._policy = policy
        self._has_gpu = has_gpu
        self._has_weights = False
        self._asleep: set[str] = set()
        self._names = engine_weight_names(transformers_model(policy.model).config)
        with _nothing_else_changed():
            try:
                import vllm
            except ImportError as error:
                raise MissingExtraError("vllm", "vllm", "rollout by vLLM") from error
            self._vllm = vllm
            self._llm: Any = vllm.LLM(**_engine_arguments(policy, choice, has_gpu=has_gpu))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """As ``RolloutEngine``. Each completion has a seed of its own, so a resumed run draws the same.

        Raises:
            RolloutError: weights were never loaded, or the engine's answer does not pair with what was asked.
        """
        self._ready("weights", "kv_cache")
        self._require_weights()
        times: Counter[str] = Counter()
        requests, parameters = [], []
        for prompt in prompts:
            requests.append(_request(prompt, prompt.token_ids))
            seed = seed_of_prompt(sampling.seed, prompt.row_id, times[prompt.row_id])
            parameters.append(self._parameters(sampling, seed))
            times[prompt.row_id] += 1
        answers = self._llm.generate(requests, parameters, use_tqdm=False) if requests else []
        self._check_prompts(prompts, [prompt.token_ids for prompt in prompts], answers)
        return [self._completions(prompt, answer, sampling) for prompt, answer in zip(prompts, answers, strict=True)]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over all weights, then empty the prefix, encoder and picture caches, which hold the old ones' results.

        They are taken as they come, in chunks, so that no more than one is held beside the policy and the engine.
        After an error the engine has no weights, and completes nothing until a whole set has come.

        Raises:
            ValueError: a weight is missing, a tied head included, or is none of the model's.
            RolloutError: a cache could not be emptied; the engine may not be used further.
        """
        self._ready("weights")
        self._has_weights = False
        taken: set[str] = set()
        self._llm.collective_rpc("begin_weights")
        for chunk in weight_chunks(weights):
            names = {name for name, _ in chunk}
            check_complete(names | self._names, self._names)
            self._llm.collective_rpc("take_weights", args=(chunk,))
            taken |= names
        check_complete(taken, self._names)
        self._llm.collective_rpc("end_weights")
        if not self._llm.reset_prefix_cache():
            raise RolloutError("vLLM could not empty its prefix cache: a request still runs; the step cannot go on")
        self._llm.llm_engine.reset_encoder_cache()
        self._has_weights = True

    def log_probabilities(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """As ``RolloutEngine``; nothing is read from the prefix cache for it.

        Raises:
            RolloutError: weights were never loaded, or the engine's answer does not pair with what was asked.
        """
        self._ready("weights", "kv_cache")
        self._require_weights()
        wholes = [(*prompt.token_ids, *ids) for prompt, ids in zip(prompts, completions, strict=True)]
        parameters = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        requests = [_request(prompt, whole) for prompt, whole in zip(prompts, wholes, strict=True)]
        answers = self._llm.generate(requests, parameters, use_tqdm=False) if requests else []
        self._check_prompts(prompts, wholes, answers)
        return [
            sampled_values(
                prompt.row_id, ids, (answer.prompt_logprobs or [])[len(answer.prompt_token_ids) - len(ids) :]
            )
            for prompt, ids, answer in zip(prompts, completions, answers, strict=True)
        ]

    def sleep(self) -> None:
        """Move the weights to the host's memory and give up the cache; without a GPU nothing happens."""
        if self._has_gpu and self._llm is not None and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = {"weights", "kv_cache"}

    def close(self) -> None:
        """End the engine and free its memory; it cannot be used after."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _ready(self, *parts: str) -> None:
        """Wake these parts where they sleep, and no more, since the trainer's memory may still be full."""
        if self._llm is None:
            raise RolloutError("the engine was closed")
        if asleep := sorted(self._asleep.intersection(parts)):
            self._llm.wake_up(tags=asleep)
            self._asleep -= set(asleep)

    def _require_weights(self) -> None:
        if not self._has_weights:
            raise RolloutError("the engine has not been given the policy's weights yet; call load_weights first")

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        return self._vllm.SamplingParams(
            n=sampling.completions,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
            seed=seed,
            logprobs=0,
            detokenize=False,
            stop_token_ids=list(self._policy.end_ids),
            logit_bias=dict.fromkeys(self._policy.banned_ids, _LEAST_BIAS) or None,
        )

    def _completions(self, prompt: Prompt, answer: Any, sampling: Sampling) -> list[Completion]:
        if len(answer.outputs) != sampling.completions:
            raise RolloutError(
                f"{prompt.row_id}: vLLM gave {len(answer.outputs)} completions of {sampling.completions}"
            )
        found = []
        for output in sorted(answer.outputs, key=lambda output: output.index):
            ids = tuple(int(token) for token in output.token_ids)
            if set(ids) & set(self._policy.banned_ids):
                raise RolloutError(f"{prompt.row_id}: vLLM drew a token that stands for a picture")
            if output.finish_reason not in ("stop", "length"):
                raise RolloutError(f"{prompt.row_id}: vLLM ended a completion for {output.finish_reason!r}")
            values = tuple(sampled_values(prompt.row_id, ids, output.logprobs or []))
            found.append(Completion(ids, values, output.finish_reason == "stop"))
        return found

    def _check_prompts(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[int]], answers: Sequence[Any]) -> None:
        """The ids that the engine expanded must be those that the trainer will score."""
        for prompt, text, answer in zip(prompts, texts, answers, strict=True):
            rule = self._policy.pictures
            wanted = tuple(text) if rule is None else rule.expand(text, [p.size for p in prompt.pictures])
            if tuple(answer.prompt_token_ids) != wanted:
                raise RolloutError(
                    f"{prompt.row_id}: vLLM made {len(answer.prompt_token_ids)} tokens of a prompt that is "
                    f"{len(wanted)} for the trainer; its processor differs from the trainer's"
                )


@contextmanager
def _nothing_else_changed() -> Iterator[None]:
    """Keep the warnings of vLLM's own imports away, and this process's random states as they were before its start."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global state is what vLLM seeds)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    random.setstate(python)
    np.random.set_state(arrays)  # noqa: NPY002


def set_environment(*, has_gpu: bool, is_folder: bool, choice: VllmChoice) -> None:
    """Set the variables that the module's text names, each only where nothing has set it."""
    values = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if not has_gpu:
        values |= {
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(choice.cpu_cache_gib),
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        if is_folder:
            values["HF_HUB_OFFLINE"] = "1"
    for name, value in values.items():
        os.environ.setdefault(name, value)


def sampled_values(row_id: str, token_ids: Sequence[int], maps: Sequence[Mapping[int, Any] | None]) -> list[float]:
    """The log-probability of each given token, out of vLLM's map of candidates at its place.

    Raises:
        RolloutError: not one map for each token, or a map without its token.
    """
    if len(maps) != len(token_ids):
        raise RolloutError(f"{row_id}: vLLM gave {len(maps)} log-probabilities for {len(token_ids)} tokens")
    values = []
    for token, candidates in zip(token_ids, maps, strict=True):
        if candidates is None or token not in candidates:
            raise RolloutError(f"{row_id}: vLLM gave no log-probability of the token that it drew")
        values.append(float(candidates[token].logprob))
    return values


def _request(prompt: Prompt, token_ids: Sequence[int]) -> dict[str, Any]:
    request: dict[str, Any] = {"prompt_token_ids": list(token_ids)}
    if prompt.pictures:
        request["multi_modal_data"] = {"image": list(prompt.pictures)}
    return request


def _engine_arguments(policy: Policy, choice: VllmChoice, *, has_gpu: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": policy.choice.path,
        "dtype": policy.choice.dtype,
        "max_model_len": choice.max_model_tokens,
        "max_num_seqs": choice.max_sequences,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "worker_extension_cls": WORKER_EXTENSION,
        "seed": 0,
    }
    if policy.pictures is not None:
        size = {"shortest_edge": policy.pictures.min_pixels, "longest_edge": policy.pictures.max_pixels}
        arguments |= {
            "limit_mm_per_prompt": {"image": choice.pictures_per_prompt, "video": 0},
            "mm_processor_kwargs": {"size": size},
        }
    if has_gpu:
        arguments |= {"gpu_memory_utilization": choice.gpu_memory, "enable_sleep_mode": True}
    else:
        # Prompts are prefilled whole: part of one under its own seed ends in "CPU Generator does not use offset".
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False}
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        arguments["distributed_executor_backend"] = "external_launcher"
    return arguments
