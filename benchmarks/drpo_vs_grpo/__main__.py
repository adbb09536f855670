"""``python -m benchmarks.drpo_vs_grpo``: the same as ``python -m benchmarks drpo_vs_grpo``."""

import sys

from benchmarks.drpo_vs_grpo import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
