"""One call of attention as the kernels and cuDNN are told it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._attention import AttentionCall

Array = Any


class CudaCall(NamedTuple):
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

    @classmethod
    def of(cls, call: AttentionCall) -> CudaCall | None:
        """A call in this form; None where neither the kernels nor cuDNN have what it asks for."""
        visible = call.visibility
        further = call.bias is None and call.softcap is None and call.sinks is None and not call.dropout
        values = call.k if call.v is None else call.v
        if not further or visible.offsets is not None or 0 in (*call.q.shape, *values.shape):
            return None

        def of_each(numbers: np.ndarray) -> np.ndarray:
            return np.repeat(numbers, visible.entries_each)  # (N,) -> (B,)

        start, lengths = visible.start, visible.lengths
        return cls(
            q=call.q,
            k=call.k,
            v=values,
            scale=call.scale,
            groups=visible.groups,
            left=visible.left,
            right=visible.right,
            start=int(start[0]) if len(start) == 1 else of_each(start),
            lengths=None if lengths is None else of_each(lengths),
            mask=None if call.mask is None else call.mask.flat(),
        )
