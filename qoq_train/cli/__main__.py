"""``python -m qoq_train.cli``: the same as ``qoq-train``, for launchers that start a module."""

from qoq_train.cli import main

main()
