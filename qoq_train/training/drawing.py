"""The questions of a step: which ones a rank has, their completions, and what each is worth."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from qoq_train.prompts import LeftOut
from qoq_train.rewards import Reward, RowFacts, rewards_of
from qoq_train.rollout import Completion, Prompt, RolloutEngine, Sampling
from qoq_train.training.assembly import Assembly, facts_of
from qoq_train.training.evaluate import text_of
from qoq_train.training.figures import Means

if TYPE_CHECKING:
    from qoq_train.data.corpus import Example, SplitRows
    from qoq_train.training.ranks import Ranks

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """This rank's questions of a step with their completions and what each is worth.

    ``numbers`` are those of the kept questions among all of the step's; ``left_out`` had too long a prompt.
    """

    numbers: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    facts: tuple[RowFacts, ...]
    completions: tuple[tuple[Completion, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    rewards: tuple[tuple[Reward, ...], ...]
    left_out: tuple[LeftOut, ...]

    @property
    def token_ids(self) -> list[list[tuple[int, ...]]]:
        """Of each question's completions."""
        return [[one.token_ids for one in group] for group in self.completions]

    @property
    def said(self) -> list[torch.Tensor]:
        """The engine's log-probabilities [tokens] of each completion, question after question."""
        return [torch.tensor(one.log_probabilities) for group in self.completions for one in group]

    def totals(self, completions: int) -> torch.Tensor:
        """Rewards (questions × completions); there may be no question."""
        values = [[reward.total for reward in group] for group in self.rewards]
        return torch.tensor(values, dtype=torch.float64).reshape(len(values), completions)


def share_of_step(questions: int, questions_per_update: int, ranks: Ranks) -> list[int]:
    """The numbers of a rank's questions among a step's: its even part of every update's, in their order.

    So each update is spread over all ranks, and holds what it would hold on one.
    """
    own: list[int] = []
    for start in range(0, questions, questions_per_update):
        size = min(questions_per_update, questions - start)
        first, last = ranks.rank * size // ranks.world, (ranks.rank + 1) * size // ranks.world
        own += range(start + first, start + last)
    return own


def batches_of_rank(
    rows: SplitRows, questions: int, own: Sequence[int], first_step: int, last_step: int, seed: int
) -> Generator[list[Example], None, None]:
    """The examples with numbers ``own`` of each step, media read; the next step's are read while this one is used."""
    order = rows.order(seed)

    def read(step: int) -> list[Example]:
        places = order.rows(step * questions, (step + 1) * questions)
        return [rows.example(int(places[number])) for number in own]

    with ThreadPoolExecutor(1, "media") as reader:
        waiting = reader.submit(read, first_step) if first_step < last_step else None
        for step in range(first_step + 1, last_step + 1):
            assert waiting is not None  # noqa: S101  (for the type checker)
            ready = waiting.result()
            waiting = reader.submit(read, step) if step < last_step else None
            yield ready


def draw(
    assembly: Assembly, engine: RolloutEngine, step: int, numbers: Sequence[int], rows: Sequence[Example]
) -> Drawn:
    """Ask the rows' questions, and judge what is answered.

    The draws follow from the recipe's seed, the step and the row, and so do not depend on the ranks.
    """
    recipe, writer = assembly.recipe.rollout, assembly.writer
    asked = [(number, row, writer.prompt(row)) for number, row in zip(numbers, rows, strict=True)]
    kept = [(number, row, prompt) for number, row, prompt in asked if not isinstance(prompt, LeftOut)]
    prompts = tuple(prompt for _, _, prompt in kept)
    facts = tuple(facts_of(row, writer) for _, row, _ in kept)
    seed = assembly.recipe.seed * 1_000_003 + step
    sampling = Sampling(recipe.completions, recipe.max_tokens, recipe.temperature, recipe.top_p, seed)
    completions = tuple(tuple(group) for group in engine.generate(prompts, sampling))
    texts = tuple(tuple(text_of(assembly, one) for one in group) for group in completions)
    rewards = rewards_of(texts, facts, assembly.rewards, assembly.user_rewards)
    left_out = tuple(prompt for _, _, prompt in asked if isinstance(prompt, LeftOut))
    own = tuple(number for number, _, _ in kept)
    return Drawn(own, prompts, facts, completions, texts, tuple(map(tuple, rewards)), left_out)


def greedy_rewards(assembly: Assembly, engine: RolloutEngine, drawn: Drawn) -> torch.Tensor:
    """What each question's likeliest completion is worth: float64 [questions]."""
    greedy = engine.generate(drawn.prompts, Sampling(1, assembly.recipe.rollout.max_tokens, 0.0))
    texts = [[text_of(assembly, group[0])] for group in greedy]
    rewards = rewards_of(texts, drawn.facts, assembly.rewards, assembly.user_rewards)
    return torch.tensor([group[0].total for group in rewards], dtype=torch.float64)


def reward_figures(drawn: Drawn, ranks: Ranks) -> dict[str, float]:
    """Mean rewards overall, by part and by domain, and what completions were like, over all ranks."""
    means = Means()
    for facts, group, completions in zip(drawn.facts, drawn.rewards, drawn.completions, strict=True):
        for reward, completion in zip(group, completions, strict=True):
            parts = {f"reward/{name}": value for name, value in reward.parts.items() if value is not None}
            means.add(
                {
                    "reward": reward.total,
                    f"reward/domain/{facts.domain}": reward.total,
                    "unreadable": float(reward.answer.unreadable is not None),
                    "tokens": float(len(completion.token_ids)),
                    "cut": float(not completion.stopped),
                    **parts,
                }
            )
    questions, left_out = ranks.total(len(drawn.prompts), len(drawn.left_out))
    return {"questions": float(questions), "left_out": float(left_out), **means.means(ranks)}


def sampled_completions(drawn: Drawn, most: int) -> list[dict[str, object]]:
    """At most so many completions with their rewards by part, as rows of a table."""
    kept: list[dict[str, object]] = []
    for facts, texts, rewards in zip(drawn.facts, drawn.texts, drawn.rewards, strict=True):
        for text, reward in zip(texts, rewards, strict=True):
            if len(kept) == most:
                return kept
            parts = {f"reward_{name}": value for name, value in reward.parts.items()}
            kept.append({"row": facts.id, "completion": text, "reward": reward.total, **parts})
    return kept
