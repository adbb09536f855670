"""A run's figures as TensorBoard's curves, where that is installed: the same numbers as in its JSON lines."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Curves:
    """Curves below ``folder``, one set a log. Without the package ``tensorboard`` nothing is written.

    A set is opened by its first figures of this process, and what an earlier process wrote at that step or later is
    dropped from the curves: a run that goes on from a checkpoint shows each step once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._is_installed = find_spec("tensorboard") is not None

    def add(self, name: str, figures: Mapping[str, Any]) -> None:
        """The finite numbers of a step under their names; ``figures`` holds ``step``."""
        if not self._is_installed:
            return
        step = int(figures["step"])
        if name not in self._writers:
            self._writers[name] = _writer(self._folder / name, step)
        for key, value in figures.items():
            if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                self._writers[name].add_scalar(key, value, step)

    def flush(self) -> None:
        """Put what was added on the disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write all and end; more may be added after."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _writer(folder: Path, first_step: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(log_dir=str(folder), purge_step=first_step)
