"""``python -m benchmarks NAME [--quick]``: run one benchmark, print its table and, last, one JSON object.

A benchmark is a module of this folder with ``run(quick: bool) -> Result``, and one with options of its own has
``main(arguments) -> int`` too.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.harness import Result

_NOT_BENCHMARKS = {"__main__", "harness", "imports", "table_scans"}


def names() -> list[str]:
    """Names of the benchmarks, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in _NOT_BENCHMARKS)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the command line names; 0 when it ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run one benchmark.")
    parser.add_argument("name", choices=names(), metavar="NAME", help="one of: " + ", ".join(names()))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for checks, not for figures to report")
    options, rest = parser.parse_known_args(arguments)
    module = importlib.import_module(f"benchmarks.{options.name}")
    if hasattr(module, "main"):  # it has options of its own
        return int(module.main([*rest, *(["--quick"] * options.quick)]))
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    result = module.run(options.quick)
    assert isinstance(result, Result)
    print(result.table())
    print(f"{result.ratio:.1f} times the peer; the least possible is {result.limit:.3g} {result.unit}")
    print(result.json_line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
