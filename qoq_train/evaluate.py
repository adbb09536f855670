"""Evaluation: one completion a row of a split, read and judged as in training, and the figures as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qoq_train.answers import read_answer
from qoq_train.assembly import facts_of
from qoq_train.metrics import Figure, Outcome, Report, report
from qoq_train.prompts import LeftOut
from qoq_train.rewards import box_reward, read_boxes
from qoq_train.rewards.box import whole_picture_boxes
from qoq_train.rollout import Prompt, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoq_data.record import Split
    from qoq_train.assembly import Assembly
    from qoq_train.data import Example
    from qoq_train.rollout import Completion, RolloutEngine

ROWS_AT_ONCE = 256
_SHOWN = ("macro_f1", "exact_match", "accuracy_one_vs_rest", "within_tolerance", "box_iou", "unreadable_rate")


def evaluate(
    assembly: Assembly, engine: RolloutEngine, split: Split, *, most: int | None = None, replicates: int = 1000
) -> tuple[Report, list[LeftOut]]:
    """The figures of the policy as the engine has it, and the rows whose prompt was too long to be asked.

    At most ``most`` rows, which ones following from the recipe's seed. Raises ``ValueError`` where no row is left.
    """
    recipe = assembly.recipe
    rows = assembly.corpus.rows(split)
    sampling = Sampling(1, recipe.rollout.max_tokens, recipe.run.evaluation_temperature, 1.0, recipe.seed)
    outcomes: list[Outcome] = []
    left_out: list[LeftOut] = []
    places = rows.sample(most, recipe.seed).tolist()
    for start in range(0, len(places), ROWS_AT_ONCE):
        asked: list[tuple[Example, Prompt]] = []
        for place in places[start : start + ROWS_AT_ONCE]:
            example = rows.example(place)
            prompt = assembly.writer.prompt(example)
            if isinstance(prompt, LeftOut):
                left_out.append(prompt)
            else:
                asked.append((example, prompt))
        drawn = engine.generate([prompt for _, prompt in asked], sampling)
        outcomes += [
            outcome_of(assembly, example, text_of(assembly, group[0]))
            for (example, _), group in zip(asked, drawn, strict=True)
        ]
    return report(outcomes, replicates=replicates, seed=recipe.seed), left_out


def text_of(assembly: Assembly, completion: Completion) -> str:
    """A completion's text without what ended it."""
    ids = completion.token_ids[:-1] if completion.stopped else completion.token_ids
    return str(assembly.policy.tokenizer.decode(list(ids)))


def outcome_of(assembly: Assembly, example: Example, text: str) -> Outcome:
    """What was answered, read as the reward reads it."""
    facts = facts_of(example, assembly.writer)
    asked = facts.boxes if facts.boxes_expected else None
    return Outcome(
        dataset=example.source,
        domain=str(example.domain),
        task=example.task,
        group=example.patient or example.row_id,
        key=example.key,
        read=read_answer(text, example.choices, example.answer_type),
        box_iou=None if asked is None else box_reward(read_boxes(text), asked),
        constant_box_iou=None if asked is None else box_reward(whole_picture_boxes(asked), asked),
    )


def scalars(found: Report) -> dict[str, float]:
    """The figures overall and by domain under flat names, for a log."""
    flat = {f"overall/{name}": figure.value for name, figure in found.overall.figures.items()}
    for domain, scores in found.domains.items():
        flat |= {f"{domain}/{name}": figure.value for name, figure in scores.figures.items()}
    return flat


def report_json(found: Report) -> dict[str, Any]:
    """The whole report as plain values."""
    return {
        "overall": _plain(found.overall),
        "domains": {name: _plain(scores) for name, scores in found.domains.items()},
        "datasets": {"/".join(name): _plain(scores) for name, scores in found.datasets.items()},
        "tasks": {"/".join(name): _plain(scores) for name, scores in found.tasks.items()},
    }


def report_table(found: Report) -> str:
    """The report as a Markdown table: each figure with its interval, and the best constant answer in brackets."""
    lines = [("of", found.overall), *(("domain " + name, scores) for name, scores in found.domains.items())]
    lines += [("data set " + "/".join(name), scores) for name, scores in found.datasets.items()]
    shown = [name for name in _SHOWN if any(name in scores.figures for _, scores in lines)]
    table = [("", "rows", *(name.replace("_", " ") for name in shown)), ("---",) * (len(shown) + 2)]
    for title, scores in lines:
        name = "all: mean of domains" if title == "of" else title
        figures = (scores.figures.get(column) for column in shown)
        table.append((name, f"{scores.rows}", *(_cell(figure) for figure in figures)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    constant = "" if figure.constant is None else f" [{figure.constant:.3f}]"
    return f"{figure.value:.3f}{interval}{constant}"


def _plain(scores: Any) -> dict[str, Any]:
    return {
        "rows": scores.rows,
        "figures": {name: asdict(figure) for name, figure in scores.figures.items()},
        "unreadable": dict(scores.unreadable),
    }


def named(prompts: Sequence[LeftOut]) -> list[dict[str, Any]]:
    """Rows that were left out, for a log."""
    return [{"row": one.row_id, "tokens": one.tokens} for one in prompts]
