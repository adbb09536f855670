"""DRPO as verl runs it: importing this registers the estimator ``drpo`` and the trainer mode ``drpo`` (verl 0.9.1).

An estimator is handed rewards, mask and uid. The trainer here is verl's synchronous one, and before each batch is
weighed reads from the transfer queue what stands beside every completion: its row's domain and, where the damping
needs them, the log-probabilities. What DRPO remembers is saved in verl's checkpoints and restored from them.

verl has to import this in the process that trains: ``ray_kwargs.ray_init.runtime_env.env_vars`` with
``VERL_USE_EXTERNAL_MODULES: qoq_train.integrations.verl_trainer`` does that.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Final

import torch

from qoq_data.errors import MissingExtraError, UsageError
from qoq_train.advantages import DrpoState
from qoq_train.integrations.verl import ESTIMATOR_NAME, DrpoEstimator, Rows, VerlSettings
from qoq_train.losses import kl_penalty

try:
    import transfer_queue
    from omegaconf import open_dict
    from verl.trainer.ppo.core_algos import register_adv_est
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
except ImportError as error:
    raise MissingExtraError(error.name or "verl", "verl", "Training in verl") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_FILE: Final = "drpo_state.pt"
"""What DRPO remembers, in each checkpoint's ``global_step_N`` folder."""

ESTIMATOR: Final = DrpoEstimator()
"""The one of this process: verl looks estimators up by name, and so has no place for another."""

register_adv_est(ESTIMATOR_NAME)(ESTIMATOR)


@register_trainer(ESTIMATOR_NAME)
class DrpoTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl's classes are not typed for a strict check
    """verl's synchronous trainer, ``trainer.v1.trainer_mode=drpo``, which tells DRPO the domain of each completion.

    Every row's ``extra_info`` needs ``domain`` (or, with ``algorithm.drpo.domain_key: source``, its ``data_source``
    is taken). Raises ``UsageError`` for settings that cannot be, before any model is loaded.
    """

    def __init__(self, config: Any) -> None:
        if config.algorithm.adv_estimator != ESTIMATOR_NAME:
            raise UsageError("trainer.v1.trainer_mode is drpo: set algorithm.adv_estimator=drpo too.")
        self._settings = VerlSettings.of_algorithm(config.algorithm)
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # by which verl tells how batches are drawn
        super().__init__(config)
        if self._settings.config.kl_damping and not self.use_reference_policy:
            raise UsageError(
                "algorithm.drpo.kl_damping needs a reference model: set actor_rollout_ref.actor.use_kl_loss=True, "
                "or algorithm.drpo.kl_damping=False."
            )
        ESTIMATOR.state = DrpoState()

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        ESTIMATOR.rows = self._rows(batch)
        batch = super()._compute_advantage(batch, metrics)
        metrics.update(ESTIMATOR.figures)
        return batch

    def _rows(self, batch: Any) -> Rows:
        if any(key.rsplit("_", 1)[-1] != "0" for key in batch.keys):
            raise UsageError("an agent loop gave several outputs of one completion; DRPO takes loops that give one.")
        damped = self._settings.config.kl_damping
        fields = ["uid", "data_source", "extra_info"]
        if damped:
            fields += ["response_mask", "old_log_probs", "ref_log_prob"]
        data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        uids, sources, infos = (data.get(name).tolist() for name in ("uid", "data_source", "extra_info"))
        by_source = self._settings.domain_key == "source"
        domains = tuple(
            None if tag.get("is_padding") else _domain(source if by_source else info.get("domain"), key, info)
            for key, tag, source, info in zip(batch.keys, batch.tags, sources, infos, strict=True)
        )
        kl = None
        if damped:
            padded = data.select("response_mask", "old_log_probs", "ref_log_prob").to_padded_tensor()
            mask = padded["response_mask"].bool()
            kl = kl_penalty(padded["old_log_probs"], padded["ref_log_prob"], mask, "k3").per_token.sum(dim=1)
        return Rows(tuple(map(str, uids)), domains, kl, int(self.config.actor_rollout_ref.rollout.n))

    def _save_checkpoint(self) -> None:
        # before verl writes the rest, whose last file says that the checkpoint is whole
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        save_state(folder, ESTIMATOR.state)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        given = trainer.resume_from_path if trainer.resume_mode == "resume_path" else None
        folder = Path(given) if given else Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        ESTIMATOR.state = load_state(folder)


def save_state(folder: Path, state: DrpoState) -> None:
    """Write what DRPO remembers into a checkpoint's folder, whole or not at all."""
    part = folder / f"{STATE_FILE}.part"
    with part.open("wb") as file:
        torch.save(state.to_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / STATE_FILE)


def load_state(folder: Path) -> DrpoState:
    """What DRPO remembered at a checkpoint; raises ``UsageError`` where the folder does not say, or not rightly."""
    file = folder / STATE_FILE
    if not file.is_file():
        raise UsageError(
            f"{folder.name} holds no {STATE_FILE}: it is a checkpoint of another method, and going on from it would "
            "weigh domains as if nothing had been seen. Start a new run of its model: trainer.resume_mode=disable."
        )
    try:
        return DrpoState.from_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (UnpicklingError, ValueError, TypeError, AttributeError, RuntimeError, EOFError) as error:
        raise UsageError(f"{folder.name}/{STATE_FILE} is damaged or none of DRPO's.") from error


def _domain(name: Any, key: str, info: Mapping[str, Any]) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"row {info.get('id') or key} has no domain: DRPO takes extra_info.domain, or data_source with "
            "algorithm.drpo.domain_key=source."
        )
    return name
