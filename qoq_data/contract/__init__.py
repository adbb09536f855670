"""What a person who adds a source needs: the contract's checks, and a source file to begin with."""

from qoq_data.contract.checks import CHECKS

__all__ = ["CHECKS"]
