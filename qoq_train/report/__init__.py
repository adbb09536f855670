"""A run as a page and pictures, from its folder alone."""

from qoq_train.report.page import write_report

__all__ = ["write_report"]
