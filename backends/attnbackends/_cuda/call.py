"""One call of attention as the kernels and cuDNN are told it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from .._attention import AttentionCall

Array = Any

FARTHEST_POSITION = 2**28
"""Positions and lengths beyond it go elsewhere: the kernels add and subtract them as ints of 32 bits."""


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
    keys_are_values : bool
        Whether there is one gradient for both.
    scale : float
    groups : int
    left, right : int or None
        How many keys before and after its position a query sees; None is unbounded, causal is ``right == 0``.
    start : int or NumPy array (N,)
        Position among the keys of the first query, for all entries or for each of the batch; may be negative.
    lengths : NumPy array (N,) or None
        Valid keys of each entry of the batch; 0 is allowed.
    entries_each : int
        B / N: flat entries for each entry of the batch.
    mask : boolean array (M, R or T_q or 1, T_k or 1), or None
        True = attend, on top of what positions hide.
    bias : array (M, R or T_q or 1, T_k or 1), or None
        Of the dtype of q; added to the scores.
    softcap : float or None
    sinks : array (B, R, 1) or None
        In the dtype of sums.
    dropout : float
    draws : (int, int, int)
        Where dropout draws: the number of the first entry, and the words of the stream's key, all signed.
    keep_bytes : int
        Bytes of weights that may be kept for backward.
    mask_each, bias_each : int
        Entry b has the mask, or the bias, of number ``b // each % M``.
    """

    q: Array
    k: Array
    v: Array
    keys_are_values: bool
    scale: float
    groups: int
    left: int | None
    right: int | None
    start: int | np.ndarray
    lengths: np.ndarray | None
    entries_each: int
    mask: Array | None
    bias: Array | None = None
    softcap: float | None = None
    sinks: Array | None = None
    dropout: float = 0.0
    draws: tuple[int, int, int] = (0, 0, 0)
    keep_bytes: int = 0
    mask_each: int = 1
    bias_each: int = 1

    @property
    def T_q(self) -> int:
        return int(self.q.shape[1]) // self.groups

    @classmethod
    def of(cls, call: AttentionCall) -> CudaCall | None:
        """A call in this form; None where neither the kernels nor cuDNN have what it asks for."""
        visible = call.visibility
        if visible.offsets is not None:
            return None
        q, k, v, start = call.q, call.k, call.v, visible.start
        mask, mask_each = (None, 1) if call.mask is None else call.mask.by_entry()
        bias, bias_each = (None, 1) if call.bias is None else call.bias.by_entry()
        own = cls(
            q,
            k,
            k if v is None else v,
            v is None,
            call.scale,
            visible.groups,
            visible.left,
            visible.right,
            int(start[0]) if len(start) == 1 else start,
            visible.lengths,
            visible.entries_each,
            mask,
            bias,
            call.softcap,
            call.sinks,
            call.dropout,
            (call.first_entry, *_signed(call.stream)) if call.dropout else (0, 0, 0),
            call.keep_bytes,
            mask_each,
            bias_each,
        )
        return None if 0 in q.shape or 0 in own.v.shape else own

    @property
    def options(self) -> int:
        """The bits of `OPTIONS` in ``kernels/attention.cuh``."""
        if self.softcap is self.bias is self.sinks is None and not self.dropout:
            return 0
        softcap, bias, sinks = (x is not None for x in (self.softcap, self.bias, self.sinks))
        return softcap + 2 * bias + 4 * sinks + 8 * (self.dropout > 0)

    @property
    def may_hide(self) -> bool:
        """Whether there may be queries that see nothing, or keys that no query of an entry sees."""
        if self.mask is not None or self.lengths is not None:
            return True
        left, right, T_k = self.left, self.right, int(self.k.shape[1])
        if left is None and right is None:
            return False
        if not isinstance(self.start, int):
            return True
        first, last = self.start, self.start + self.T_q - 1
        at_start = left is not None and (first > left or last - left >= T_k)
        return at_start or (right is not None and (first + right < 0 or last + right < T_k - 1))

    @property
    def is_near(self) -> bool:
        """Whether the kernels can count as far as the call does."""
        start = self.start if isinstance(self.start, int) else int(np.max(np.abs(self.start)))
        return max(self.q.shape[1], self.k.shape[1], abs(start)) <= FARTHEST_POSITION

    @property
    def key(self) -> Hashable:
        """All of a call but what its arrays hold and where they lie; positions and lengths of each entry are arrays."""
        q, k, v, mask, bias, start = self.q, self.k, self.v, self.mask, self.bias, self.start
        return (
            q.data.device_id,
            q.dtype.char,
            q.shape,
            q.strides,
            k.shape,
            k.strides,
            None if v is k else (v.shape, v.strides),
            self.keys_are_values,
            self.scale,
            self.groups,
            self.left,
            self.right,
            start if isinstance(start, int) else ("near" if self.is_near else "far"),
            self.lengths is None,
            None if mask is None else (mask.shape, mask.strides, self.mask_each),
            None if bias is None else (bias.shape, bias.strides, self.bias_each),
            self.softcap,
            self.sinks is None,
            self.dropout,
        )

    def by_entry(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of each entry of the batch (N,) for each flat entry (B,), as the kernels read them."""
        return np.repeat(numbers, self.entries_each).astype(np.int32)


def _signed(key: int) -> tuple[int, int]:
    """The two words of a stream's key as signed integers of 64 bits."""
    low, high = key % 2**64, key >> 64
    return low - 2**64 * (low >> 63), high - 2**64 * (high >> 63)
