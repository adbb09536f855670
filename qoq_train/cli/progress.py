"""What a run is told about while it goes: one line a step on stderr, plain text where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

_SUPERVISED_EVERY: Final = 25
_OVERALL: Final = "overall/"
_DOMAIN: Final = "reward/domain/"
_SECONDS: Final = "seconds/"
_EVALUATED: Final = (("macro_f1", "macro F1"), ("exact_match", "exact match"), ("unreadable_rate", "unreadable"))


def progress(completions: int) -> Callable[[dict[str, float]], None]:
    """What a run calls with each step's figures; ``completions`` are those of a question."""
    is_terminal = sys.stderr.isatty()

    def told(figures: dict[str, float]) -> None:
        line = step_line(figures, completions)
        if line is None:
            return
        step, _, rest = line.partition("  ")
        sys.stderr.write(f"\x1b[1m{step}\x1b[0m  {rest}\n" if is_terminal else f"{line}\n")
        sys.stderr.flush()

    return told


def step_line(figures: Mapping[str, float], completions: int) -> str | None:
    """The line of a step: supervised, on-policy or of an evaluation, told by what figures it has.

    None for a supervised step between the lines that are shown.
    """
    step = f"step {figures['step']:.0f}"
    if figures.get("supervised"):
        if figures["step"] != 1 and figures["step"] % _SUPERVISED_EVERY:
            return None
        return f"supervised {step}  loss {figures['loss']:.4f}"
    if any(name.startswith(_OVERALL) for name in figures):
        return f"{step}  {_evaluation(figures)}"
    return f"{step}  {_training(figures, completions)}"


def tokens_a_second(figures: Mapping[str, float], completions: int) -> float | None:
    """Tokens drawn over all seconds of the step; None where the step does not say."""
    seconds = sum(value for name, value in figures.items() if name.startswith(_SECONDS))
    if not seconds > 0 or "tokens" not in figures or "questions" not in figures:
        return None
    return figures["tokens"] * figures["questions"] * completions / seconds


def _training(figures: Mapping[str, float], completions: int) -> str:
    parts = []
    if "reward" in figures:
        parts.append(f"reward {figures['reward']:.3f}{_by_domain(figures, _DOMAIN)}")
    shown = (("loss", "loss", ".4f"), ("unreadable", "unreadable", ".3f"), ("rollout_gap/max", "gap", ".3f"))
    parts += [f"{title} {figures[name]:{how}}" for name, title, how in shown if name in figures]
    rate = tokens_a_second(figures, completions)
    parts += [] if rate is None else [f"{rate:,.0f} tokens/s"]
    seconds = {name.removeprefix(_SECONDS): value for name, value in figures.items() if name.startswith(_SECONDS)}
    if seconds:
        each = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        parts.append(f"{sum(seconds.values()):.1f} s ({each})")
    return "  ".join(parts)


def _evaluation(figures: Mapping[str, float]) -> str:
    told = [f"{title} {figures[_OVERALL + name]:.3f}" for name, title in _EVALUATED if _OVERALL + name in figures]
    ending = "/macro_f1"
    domains = {
        name.removesuffix(ending): value
        for name, value in figures.items()
        if name.endswith(ending) and not name.startswith(_OVERALL)
    }
    by_domain = ", ".join(f"{name} {value:.3f}" for name, value in sorted(domains.items()))
    return "evaluated  " + "  ".join([*told, *([f"macro F1 by domain: {by_domain}"] if by_domain else [])])


def _by_domain(figures: Mapping[str, float], prefix: str) -> str:
    found = sorted((name.removeprefix(prefix), value) for name, value in figures.items() if name.startswith(prefix))
    return f" ({', '.join(f'{name} {value:.3f}' for name, value in found)})" if found else ""
