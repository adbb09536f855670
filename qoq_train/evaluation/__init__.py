"""Evaluation: what was answered of each row, and how well answers agree with the truth."""
