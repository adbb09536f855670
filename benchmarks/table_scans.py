"""How the scan of a source's table is measured: each way in a process of its own, to tell its peak memory."""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.harness import Result

_TITLES = {"ours": "scan and collect", "pandas": "pandas, row by row", "bytes": "reading the bytes"}


def scan_result(name: str, rows: int, *, turns: int, once: Collection[str] = ()) -> Result:
    """Seconds and peak memory of ``WAYS`` of the module ``benchmarks.<name>``, medians of ``turns``, in turn.

    The module writes its tables by ``write_tables(folder, rows)``; ``IMPORTS`` names what each way imports before the
    clock starts. A way in ``once`` runs in the first turn alone.
    """
    with tempfile.TemporaryDirectory(prefix="qoq-benchmark-") as folder:
        _in_child(
            name, "write", folder, str(rows)
        )  # here it would count into every child's peak, which starts from ours
        ways = importlib.import_module(f"benchmarks.{name}").WAYS
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(turns):
            for way in ways:
                if way not in once or turn == 0:
                    measured[way].append(_in_child(name, way, folder))
    middle = {way: sorted(runs)[len(runs) // 2] for way, runs in measured.items()}
    ours, peer, limit = (middle[way][0] for way in ("ours", "pandas", "bytes"))
    lines = tuple(
        (_TITLES[way], f"{seconds:.2f}", f"{peak:.2f}", f"{rows / seconds:,.0f}")
        for way, (seconds, peak) in middle.items()
    )
    return Result(name, ours, peer, limit, peer / ours, "s", ("way", "s", "peak GiB", "rows a second"), lines)


def _in_child(*arguments: str) -> tuple[float, float]:
    """Seconds of the work (imports left out) and peak resident memory in GiB of a process that does just this."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.table_scans", *arguments], check=True, capture_output=True)
    seconds, peak = json.loads(done.stdout)
    return float(seconds), float(peak)


def _child(name: str, way: str, folder: str, rows: str = "") -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    for imported in module.IMPORTS.get(way, ()):
        importlib.import_module(imported)
    start = time.perf_counter()
    if way == "write":
        module.write_tables(Path(folder), int(rows))
    else:
        module.WAYS[way](Path(folder))
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)]))


if __name__ == "__main__":
    _child(*sys.argv[1:])
