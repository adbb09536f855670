"""TRL on the CPU for tests: imported without vLLM, which takes a minute and which no test here generates with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install 'qoq-med[trl]'")

from datasets import Dataset
from transformers import AutoTokenizer

with pytest.MonkeyPatch.context() as patch:
    patch.setattr(import_module("trl.import_utils"), "is_vllm_available", lambda *_, **__: False)
    from trl import GRPOConfig, GRPOTrainer

    from qoq_train.integrations.trl import STATE_FILE, DRPOTrainer, corpus_dataset, qoq_rewards

__all__ = [
    "STATE_FILE", "DRPOTrainer", "GRPOConfig", "GRPOTrainer", "by_sum", "config", "corpus_dataset", "qoq_rewards",
    "questions", "text_trainer",
]  # fmt: skip

COMPLETIONS = 4


def config(folder: Path, **changes: Any) -> GRPOConfig:
    """Two questions of four completions an update, one update a generation, one thread, nothing sent anywhere."""
    values: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "per_device_eval_batch_size": 4, "num_generations": COMPLETIONS, "max_completion_length": 5, "max_steps": 2,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "logging_steps": 1,
        "save_strategy": "no", "learning_rate": 1e-3, "beta": 0.01, "disable_tqdm": True,
        "seed": 3, "shuffle_dataset": False,
    }  # fmt: skip
    return GRPOConfig(**values | changes)


def questions(count: int = 8, domains: Sequence[str] = ("a", "b")) -> Dataset:
    """Rows of text, their domains in turn."""
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": f"say {i}"}], "domain": domains[i % len(domains)], "number": i}
            for i in range(count)
        ]
    )


def by_sum(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that differs between completions of a model that knows nothing."""
    return [sum(map(ord, completion[0]["content"])) % 8 / 8 for completion in completions]


def text_trainer(model: Path, args: GRPOConfig, kind: type = DRPOTrainer, **changes: Any) -> Any:
    """A trainer of the text model."""
    values: dict[str, Any] = {
        "reward_funcs": by_sum,
        "train_dataset": questions(),
        "processing_class": AutoTokenizer.from_pretrained(model, padding_side="left"),
    }
    return kind(str(model), args=args, **values | changes)
