"""The bandit's grid: which methods run in which settings, at which rates; its cells in turn on a few processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from benchmarks.drpo_vs_grpo import results
from benchmarks.drpo_vs_grpo.bandit import ADAM_RATE, Cell, Setting, train
from benchmarks.drpo_vs_grpo.methods import BINS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

EVEN, RARE, RARER = (0.25, 0.25, 0.25, 0.25), (0.5, 0.3, 0.15, 0.05), (0.64, 0.25, 0.10, 0.01)
CLEAN, NOISY = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 6.0)

SETTINGS: Final = {
    setting.name: setting
    for setting in (
        Setting("even", EVEN, CLEAN),
        Setting("even, noisy", EVEN, NOISY),
        Setting("rare", RARE, CLEAN),
        Setting("rare, noisy", RARE, NOISY),
        Setting("rarer", RARER, CLEAN),
        Setting("rarer, noisy", RARER, NOISY),
    )
}
"""Shares of the four domains × noise of the last; with noise 6 no policy can be right in it more often than half."""

CORE: Final = ("rare", "even, noisy")
"""The settings of rates and ablations."""

BASELINES: Final = ("grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "remax", "gpg")
RATES: Final = tuple(ADAM_RATE * factor for factor in (0.5, 1, 2, 4, 8, 16))
"""Of GRPO, whose best rate has to lie inside."""

DRPO_RATES: Final = RATES[1:-1]
"""Of DRPO as shipped, the most costly method; with bins it runs at all of them."""

LENGTH: Final = 0.2
"""Of steps that are all of one length, whatever the method: then only directions differ."""

SLOW: Final = {
    "drpo", "clusters_only", "clusters_3", "clusters_20", "ratio_3", "ratio_10", "ratio_none", "floor_0", "floor_02",
    "damped", "batch", "paper",
}  # fmt: skip
"""Methods whose k-means is most of a run's time, so that each cell of theirs is a piece of work of its own."""

ABLATIONS: Final = {
    "rare": (
        "clusters_only", "clusters_3", "clusters_20", "ratio_3", "ratio_10", "ratio_none", "floor_0", "floor_02",
        "damped", "batch", "paper",
    ),
    "even, noisy": ("clusters_only", "clusters_3", "ratio_3", "ratio_none", "paper"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """Cells of one setting that run as one batch with all seeds."""

    setting: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    steps: int


def cells_of(setting: str) -> list[Cell]:
    """Every cell of a setting, each once."""
    cells = [Cell(name) for name in (*BASELINES, "unscaled", "domain_only", "clusters_1", BINS, "drpo")]
    if setting in CORE:
        cells += [Cell(name) for name in ABLATIONS[setting]]
        cells += [Cell(name, rate) for name in ("grpo", BINS, "domain_only") for rate in RATES]
        cells += [Cell("drpo", rate) for rate in DRPO_RATES]
        cells += [Cell(name, LENGTH, "length") for name in ("grpo", "domain_only", BINS, "drpo")]
    return list(dict.fromkeys(cells))


def pieces(settings: Sequence[str], seeds: Sequence[int], steps: int, done: Callable[[str, Cell], bool]) -> list[Work]:
    """The grid as pieces of work without the cells that are ``done``: what is quick, DRPO as shipped, the ablations."""
    work = []
    for name in settings:
        cells = [cell for cell in cells_of(name) if not done(name, cell)]
        work += [Work(name, (cell,), tuple(seeds), steps) for cell in cells if cell.method in SLOW]
        quick = tuple(cell for cell in cells if cell.method not in SLOW)
        if quick:
            work.append(Work(name, quick, tuple(seeds), steps))
    return sorted(work, key=_turn)


def _turn(work: Work) -> int:
    first = work.cells[0]
    if first.method not in SLOW:
        return 0
    if first.method == "drpo":
        return 1 if first == Cell("drpo") else 2
    return 2 if first.method == "clusters_only" else 3


def run_grid(
    settings: Sequence[str], seeds: Sequence[int], steps: int, processes: int, file: Path | None
) -> list[results.Line]:
    """All runs of the grid, those in ``file`` as they stand there, the others run and appended to it."""
    lines = results.read(file) if file else []
    lines = [line for line in lines if line["steps"] == steps and line["seed"] in seeds and line["setting"] in settings]

    def done(setting: str, cell: Cell) -> bool:
        found = results.by_seed(lines, setting=setting, method=cell.method, rate=cell.rate, optimiser=cell.optimiser)
        return set(seeds) <= set(found)

    work = pieces(settings, seeds, steps, done)
    if processes == 1:
        for piece in work:
            _keep(run_piece(piece), lines, file)
        return lines
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(run_piece, piece) for piece in work]):
            _keep(finished.result(), lines, file)
    return lines


def run_piece(work: Work) -> list[results.Line]:
    """The runs of one piece, on one thread."""
    torch.set_num_threads(1)
    return train(SETTINGS[work.setting], work.cells, work.seeds, work.steps)


def _keep(found: list[results.Line], lines: list[results.Line], file: Path | None) -> None:
    lines += found
    if file:
        results.append(file, found)
