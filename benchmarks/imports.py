"""How long ``import qoq_data`` and ``qoq-data --help`` take, each in a fresh interpreter, and that both stay light.

``python -m benchmarks.imports`` prints medians, and exits with 1 when a heavy library comes in. A time over its target
is printed as a warning only: it says as much of the machine as of the package.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
HEAVY = ("torch", "pandas", "polars", "datasets")
HELP = """\
import sys
sys.argv = ["qoq-data", "--help"]
from qoq_data.cli import main
try:
    main()
except SystemExit:
    pass
"""
STARTS = {"import qoq_data": ("import qoq_data", 0.3), "qoq-data --help": (HELP, 0.5)}


def seconds(code: str) -> float:
    """Median over ``RUNS`` of a fresh interpreter's whole life, its own start included."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def heavy(code: str) -> list[str]:
    """Those of ``HEAVY`` that the code imports."""
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return [name for name in HEAVY if name in done.stderr.split()]


def main() -> int:
    found = 0
    for name, (code, target) in STARTS.items():
        taken, pulled = seconds(code), heavy(code)
        print(f"{name}: {taken:.3f} s (target {target:g} s), heavy imports: {', '.join(pulled) or 'none'}")
        if taken > target:
            print(f"warning: {name} took longer than its target")
        found += len(pulled)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
