"""Attention step by step, with the numbers of the last forward and backward of a layer."""

from .layers import explain
from .table import Explanation, Row

__all__ = ["Explanation", "Row", "explain"]
