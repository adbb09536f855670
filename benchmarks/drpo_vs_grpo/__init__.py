"""DRPO beside GRPO and the other critic-free methods: a contextual bandit, and the tiny model on an uneven corpus.

``python -m benchmarks drpo_vs_grpo`` runs the bandit; ``--task tiny --out FOLDER`` the tiny model. Finished runs are
lines in FOLDER, and the same command goes on where it was stopped; ``--report`` makes tables and pictures of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.drpo_vs_grpo.results import Line

BANDIT_STEPS = 600
UNIT = "error, mean over domains"


def run(quick: bool) -> Result:
    """The bandit without files; ``quick`` is two seeds of 30 steps in one setting, which shows nothing."""
    return _bandit(10, 2, None, quick=quick)


def main(arguments: Sequence[str]) -> int:
    """The command with its options; 0 when it ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks drpo_vs_grpo", description="DRPO beside GRPO.")
    parser.add_argument("--task", choices=("bandit", "tiny"), default="bandit")
    parser.add_argument("--seeds", type=int, help="10 of the bandit, 5 of the tiny model")
    parser.add_argument("--out", type=Path, help="folder of the runs: the tiny model and --report need one")
    parser.add_argument("--processes", type=int, default=2, help="of the bandit")
    parser.add_argument("--methods", help="of the tiny model, separated by commas")
    parser.add_argument("--steps", type=int, help="of the tiny model, on-policy")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm", help="of the tiny model")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write tables and pictures there, run nothing")
    parser.add_argument("--quick", action="store_true", help="for checks, not for figures to report")
    options = parser.parse_args(list(arguments))
    if options.out is None and (options.task == "tiny" or options.report):
        parser.error("--out names the folder of the runs, which --task tiny and --report need")
    if options.report:
        from benchmarks.drpo_vs_grpo.report import write_report

        for path in write_report(options.out, options.report):
            print(path)
        return 0
    if options.task == "bandit":
        result = _bandit(options.seeds or 10, options.processes, options.out, quick=options.quick)
    else:
        result = _tiny(options)
    print(result.table())
    print(result.json_line())
    return 0


def _bandit(n_seeds: int, processes: int, out: Path | None, *, quick: bool) -> Result:
    from benchmarks.drpo_vs_grpo.bandit import ADAM_RATE, limit
    from benchmarks.drpo_vs_grpo.grid import CORE, SETTINGS, run_grid
    from benchmarks.drpo_vs_grpo.report import bandit_rows

    settings, seeds, steps = list(SETTINGS), range(n_seeds), BANDIT_STEPS
    if quick:
        settings, seeds, steps, processes = ["rarer"], range(2), 30, 1
    lines = run_grid(settings, seeds, steps, processes, out / "bandit.jsonl" if out else None)
    central = CORE[0] if CORE[0] in settings else settings[0]
    least = 1 - float(np.mean(limit(SETTINGS[central], seeds)))
    at = [line for line in lines if line["rate"] == ADAM_RATE and line["optimiser"] == "adam"]
    columns, rows = bandit_rows(at, settings)
    return _result("drpo_vs_grpo", [line for line in at if line["setting"] == central], least, columns, rows)


def _tiny(options: argparse.Namespace) -> Result:
    from benchmarks.drpo_vs_grpo.report import tiny_rows
    from benchmarks.drpo_vs_grpo.tiny import DEFAULT_METHODS, Sizes, run_tiny

    sizes = Sizes.quick() if options.quick else Sizes()
    methods = options.methods.split(",") if options.methods else list(DEFAULT_METHODS)
    lines = run_tiny(options.out, range(options.seeds or 5), methods, sizes, options.engine, options.steps)
    columns, rows = tiny_rows(lines)
    return _result("drpo_vs_grpo_tiny", lines, 0.0, columns, rows)


def _result(
    name: str, lines: list[Line], least: float, columns: tuple[str, ...], rows: list[tuple[str, ...]]
) -> Result:
    """Mean error of DRPO and of GRPO over the same seeds; the limit is what no policy can be under."""
    from benchmarks.drpo_vs_grpo.report import mean_accuracies

    ours, peer = (1 - float(np.mean(mean_accuracies(lines, method))) for method in ("drpo", "grpo"))
    return Result(name, ours, peer, least, peer / ours if ours else float("inf"), UNIT, columns, tuple(rows))
