"""Keys laid out for products on a CPU, and the exp of scores as the power of two that NumPy has faster code for."""

from __future__ import annotations

from functools import cache
from math import ceil, e, log2
from typing import TYPE_CHECKING, Any

import numpy as np

from .._packed_keys import PackedKeys

if TYPE_CHECKING:
    from .._base import Array, Backend, DType

PACKED_KEYS = 64
"""Keys of a block: rows and columns are then exchanged within a first-level cache."""


@cache
def has_fast_exp2(dtype: DType) -> bool:
    """Whether ``np.exp2`` takes less time than ``np.exp``: NumPy has vector code for it with AVX-512 alone."""
    tell = getattr(getattr(np.lib, "introspect", None), "opt_func_info", None)
    if tell is None or dtype != np.float32:
        return False
    found = tell(func_name="^exp2$", signature="^float32$").get("exp2", {})
    return any("AVX512" in way["current"] or "X86_V4" in way["current"] for way in found.values())


class CpuPackedKeys(PackedKeys):
    """Keys with rows and columns exchanged: in blocks (b, J, D, 64), or few of them as one (b, D, T).

    Parameters
    ----------
    backend : Backend
    k : NumPy array (b, T, D)
    ones : bool
    in_blocks : bool
        Whether products are made in parts, which read blocks faster.
    """

    def __init__(self, backend: Backend, k: Array, ones: bool, in_blocks: bool) -> None:
        self._backend = backend
        b, T, D = k.shape
        self._blocks: Array | None = None
        if in_blocks and T >= PACKED_KEYS:
            self._blocks = _in_blocks(k, ones)
        else:
            self._turned = np.empty((b, D + ones, T), dtype=k.dtype)
            self._turned[:, :D] = k.swapaxes(1, 2)
            self._turned[:, D:] = 1

    def scores(self, q: Array, keys: slice, scale: float) -> Array:
        q = q if scale == 1 else q * scale
        blocks, matmul = self._blocks, self._backend.matmul
        if blocks is None:
            return matmul(q, self._turned[:, :, keys])
        b, r, _ = q.shape
        first, end = keys.start // PACKED_KEYS, ceil(keys.stop / PACKED_KEYS)
        scores = np.empty((b, r, (end - first) * PACKED_KEYS), dtype=q.dtype)
        by_block = scores.reshape(b, r, end - first, PACKED_KEYS).swapaxes(1, 2)
        matmul(q[:, None, :, :], blocks[:, first:end], out=by_block)  # (b, 1, r, D) x (b, J, D, 64) -> (b, J, r, 64)
        begin = first * PACKED_KEYS
        return scores[:, :, keys.start - begin : keys.stop - begin]

    def exp_scores(self, q: Array, keys: slice, scale: float, out: Array | None = None) -> Array:
        power, unit = (np.exp2, log2(e)) if has_fast_exp2(q.dtype) else (np.exp, 1.0)
        scores = self.scores(q, keys, scale * unit)
        return power(scores, out=scores if out is None else out)


def _in_blocks(k: Array, ones: bool) -> Any:
    """Keys (b, T, D) as blocks (b, J, D or D + 1, 64), the last one filled up with 0."""
    b, T, D = k.shape
    whole, rest = divmod(T, PACKED_KEYS)
    blocks = np.empty((b, whole + (rest > 0), D + ones, PACKED_KEYS), dtype=k.dtype)
    blocks[:, :whole, :D] = k[:, : T - rest].reshape(b, whole, PACKED_KEYS, D).swapaxes(2, 3)
    if rest:
        blocks[:, whole, :D, :rest] = k[:, T - rest :].swapaxes(1, 2)
        blocks[:, whole, :D, rest:] = 0
    blocks[:, :, D:] = 1
    return blocks
