"""The application that the command groups add themselves to."""

from __future__ import annotations

from qoq_data.cli import build_commands, corpus_commands, source_commands
from qoq_data.cli.frame import make_app

app = make_app(
    "qoq-data",
    "Clinical sources, as their publishers ship them, into one question-answer corpus.",
    (source_commands, build_commands, corpus_commands),
)
