"""DRPO inside TRL: ``DRPOTrainer`` over its ``GRPOTrainer``, and what it trains on: a corpus and our rewards.

Generation, scoring and losses stay TRL's; what changes is the advantage. TRL computes GRPO's in the middle of one long
method, so the rewards, which it has gathered from all processes by then, are kept on their way through, and the
advantages are replaced in what that method gives back. Every process computes the same step on the same whole batch.

Importing this module needs TRL (written for 1.16); ``MissingExtraError`` says what to install.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from qoq_data.errors import MissingExtraError, UsageError
from qoq_train.advantages import DrpoConfig, DrpoState, drpo
from qoq_train.integrations.trl_corpus import corpus_dataset, qoq_rewards
from qoq_train.losses import kl_penalty

try:
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise MissingExtraError("trl", "trl", "DRPOTrainer") from error

__all__ = ["STATE_FILE", "DRPOTrainer", "corpus_dataset", "qoq_rewards"]

STATE_FILE: Final = "drpo_state.pt"
"""What DRPO remembers, in each checkpoint's folder."""

_MODEL_INPUTS: Final = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip


class DRPOTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL's classes are not typed for a strict check
    """TRL's ``GRPOTrainer`` whose training advantages are those of ``qoq_train.advantages.drpo``.

    It takes what ``GRPOTrainer`` takes. ``drpo`` has the method's switches; None gives the defaults, with the KL
    damping where ``args.beta`` is above 0, since TRL keeps a reference model only then. ``domain_column`` names the
    datasets' column with each row's domain, a text. How rewards are scaled is in ``drpo`` alone.

    ``drpo_state`` is what is remembered. It moves on once a generation batch, however many updates reuse that batch,
    is the same on every process, and is written into each checkpoint and read from the one that a run resumes from.
    A checkpoint between two updates of one generation batch is resumed by TRL with new completions of the same
    questions, which then count twice; ``save_steps`` at whole generation batches avoids it.

    In evaluation nothing is remembered, and the advantages of the loss that TRL reports stay its own.

    Raises:
        UsageError: a dataset without the domain column, or a domain that is no text; damping without a reference
            (``beta`` 0); ``scale_rewards`` or ``multi_objective_aggregation`` set to what DRPO replaces; a processor
            that pads on the right; a completion without any reward; rewards that ``drpo`` refuses (negative ones); a
            checkpoint without DRPO's state, or with one of other switches.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "drpo"]
    _name = "DRPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "QoQ-Med: Building Multimodal Clinical Foundation Models with Domain-Aware GRPO Training",
        "id": "2506.00711",
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        drpo: DrpoConfig | None = None,
        domain_column: str = "domain",
        **others: Any,
    ) -> None:
        settings = args or GRPOConfig()
        self.drpo_config = drpo or DrpoConfig(kl_damping=settings.beta > 0)
        self.drpo_state = DrpoState()
        self.domain_column = domain_column
        self._rewards_by_function = torch.empty(0)
        _check_settings(settings, self.drpo_config)
        for name, dataset in _datasets(train_dataset, eval_dataset):
            _check_column(name, dataset, domain_column)
        super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, processing_class, **others)
        if self._is_vlm and self._tokenizer.padding_side != "left":
            # TRL pads prompts on the left by itself and takes the processor's places of the pictures as they come.
            raise UsageError("The processor pads on the right; load it with padding_side='left', as TRL asks.")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.domain_column not in self._signature_columns:
            self._signature_columns.append(self.domain_column)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        found: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._rewards_by_function = found
        return found

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        from accelerate.utils import gather_object

        # gathered before they are looked at, so that a bad one raises on every process
        domains = gather_object([example.get(self.domain_column) for example in inputs])
        _check_domains(domains, self.domain_column)
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards = self._totals(domains)
        self._log_by_domain(rewards, domains)
        if self.model.training:
            whole = self._drpo_advantages(rewards, domains, output)
            start = self.accelerator.process_index * len(inputs)
            output["advantages"] = whole[start : start + len(inputs)].to(output["advantages"])
            for _ in whole:
                self._logs["advantages"].pop()
            self._logs["advantages"].extend(whole.tolist())
        return output

    def _totals(self, domains: Sequence[str]) -> Tensor:
        """The weighted reward of each completion of all processes, in double precision."""
        table = self._rewards_by_function.double()
        unscored = table.isnan().all(dim=1).nonzero()[:, 0].tolist()
        if unscored:
            raise UsageError(
                f"{len(unscored)} completion(s) got no reward from any function, the first in domain "
                f"{domains[unscored[0]]!r}. DRPO compares all completions of a question: give each a number."
            )
        totals: Tensor = (table * self.reward_weights.to(table)).nansum(dim=1)
        return totals

    def _drpo_advantages(self, rewards: Tensor, domains: Sequence[str], output: Mapping[str, Any]) -> Tensor:
        """Advantages of all processes' completions; the state moves on."""
        size = self.num_generations
        kl = self._kl(output).reshape(-1, size) if self.drpo_config.kl_damping else None
        try:
            step = drpo(rewards.reshape(-1, size), domains[::size], self.drpo_state, self.drpo_config, kl=kl)
        except ValueError as error:
            raise UsageError(f"DRPO cannot weigh this batch: {error}.") from error
        self.drpo_state = step.state
        for name, value in step.metrics.scalars().items():
            self._metrics["train"][name].append(value)
        return step.advantages.reshape(-1)

    def _kl(self, output: Mapping[str, Any]) -> Tensor:
        """The KL to the reference (k3) of each completion of all processes, summed over its tokens."""
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        policy = output.get("old_per_token_logps")
        if policy is None:
            policy = self._log_probabilities(output)
        terms = kl_penalty(policy, output["ref_per_token_logps"], mask, "k3").per_token
        gathered: Tensor = self.accelerator.gather(terms.sum(dim=1))
        return gathered

    def _log_probabilities(self, output: Mapping[str, Any]) -> Tensor:
        """Of the policy as it generated: TRL leaves them out where the first update would find them again."""
        with torch.no_grad():
            found: Tensor = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                output["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                **{name: output[name] for name in _MODEL_INPUTS if name in output},
            )[0]
        return found

    def _log_by_domain(self, rewards: Tensor, domains: Sequence[str]) -> None:
        mode = "train" if self.model.training else "eval"
        for domain in sorted(set(domains)):
            own = torch.tensor([name == domain for name in domains], device=rewards.device)
            self._metrics[mode][f"reward/domain/{domain}"].append(rewards[own].mean().item())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

        if self.args.should_save:  # before the rest, so that no checkpoint is whole without it
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.drpo_state.to_dict(), folder / STATE_FILE)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        file = Path(checkpoint) / STATE_FILE
        if not file.is_file():
            raise UsageError(f"{file.parent.name} has no {STATE_FILE}: it is no checkpoint of a DRPO run.")
        try:
            state = DrpoState.from_dict(torch.load(file, map_location="cpu", weights_only=True))
        except ValueError as error:
            raise UsageError(f"{file.parent.name}/{STATE_FILE} cannot be gone on from: {error}.") from error
        for what, kept, asked in (
            ("statistics", state.statistics or self.drpo_config.statistics, self.drpo_config.statistics),
            ("num_generations", state.completions or self.num_generations, self.num_generations),
        ):
            if kept != asked:
                raise UsageError(f"{file.parent.name} is of a run with {what} {kept!r}, and this one has {asked!r}.")
        self.drpo_state = state


def _check_settings(args: Any, config: DrpoConfig) -> None:
    if config.kl_damping and args.beta == 0:
        raise UsageError(
            "DRPO's KL damping compares with a reference model, which TRL keeps where beta is above 0. Set beta (the "
            "published run: 1e-4), or DrpoConfig(kl_damping=False)."
        )
    for name, usual in (("scale_rewards", "group"), ("multi_objective_aggregation", "sum_then_normalize")):
        if getattr(args, name) != usual:
            raise UsageError(
                f"{name} is {getattr(args, name)!r}, which DRPO's advantages replace. Leave it at {usual!r}; "
                "DrpoConfig says how rewards are scaled."
            )


def _datasets(train: Any, evaluation: Any) -> Iterator[tuple[str, Any]]:
    yield "train_dataset", train
    if isinstance(evaluation, Mapping):
        yield from ((f"eval_dataset[{name!r}]", dataset) for name, dataset in evaluation.items())
    else:
        yield "eval_dataset", evaluation


def _check_column(name: str, dataset: Any, column: str) -> None:
    """As far as a dataset tells before it is read: its names, or of one with a transform its first row."""
    names = set(getattr(dataset, "column_names", None) or ())
    if not names or column in names:
        return
    if hasattr(dataset, "__getitem__") and len(dataset):
        names = set(dataset[0])
    if column not in names:
        raise UsageError(
            f"{name} has no column {column!r} with the domain of each row, only {', '.join(sorted(names))}. Add it, "
            "or name the one that it has by domain_column."
        )


def _check_domains(domains: Sequence[Any], column: str) -> None:
    for domain in domains:
        if not isinstance(domain, str) or not domain:
            told = "nothing" if domain is None or domain == "" else f"a {type(domain).__name__}"
            raise UsageError(f"A row has {told} in its column {column!r}; it must name the row's domain, as text.")
