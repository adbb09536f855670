"""The application that the command groups add themselves to."""

from __future__ import annotations

from qoq_data.cli.frame import make_app
from qoq_train.cli import evaluate_commands, publish_commands, recipe_commands, serve_commands, train_commands

app = make_app(
    "qoq-train",
    "Train a vision-language model on a QoQ corpus by DRPO, and evaluate it by domain.",
    (recipe_commands, train_commands, evaluate_commands, serve_commands, publish_commands),
)
