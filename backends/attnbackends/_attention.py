"""What a library's own attention is told of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any

EMPTY_ROW = 1e30
"""Log-sum-exp of a row that sees nothing, in `kernels/attention.cuh` too: exp(score - EMPTY_ROW) is 0."""


@dataclass(frozen=True)
class AttentionCall:
    """One call of attention in flat form: ``softmax(scale * q @ k.T) @ v`` for each of B entries.

    Attributes
    ----------
    q : array (B, R, D)
        Query heads that share keys stand as further rows: R = groups * T_q.
    k : array (B, T_k, D)
    v : array (B, T_k, D_v)
        Of the dtype of q; the very object k where keys are the values. No axis has length 0, and none is
        promised to be contiguous.
    scale : float
    groups : int
    left, right : int or None
        How many keys before and after its position a query sees; None is unbounded, causal is ``right == 0``.
    start : int or NumPy array (B,)
        Position among the keys of the first query of each head; may be negative.
    lengths : NumPy array (B,) or None
        Valid keys of each entry; 0 is allowed.
    mask : boolean array (B or 1, R or T_q or 1, T_k or 1), or None
        True = attend, on top of what positions hide.
    """

    q: Array
    k: Array
    v: Array
    scale: float
    groups: int
    left: int | None
    right: int | None
    start: int | np.ndarray
    lengths: np.ndarray | None
    mask: Array | None

    @property
    def T_q(self) -> int:
        return int(self.q.shape[1]) // self.groups
