"""Sums of rows on CUDA, by the kernels of ``kernels/rows.cu``: the same bits run after run."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .compiled import Kernels

Array = Any

COLUMNS, GROUPS = 16, 64
"""Columns of a block of `sum_rows`, 64 bytes of each row in float32, and threads for each: those of ``rows.cu``."""

THREADS, TILE = 256, 1024
"""Threads of a block of `scatter_add`, and ids that it looks at between two barriers: those of ``rows.cu``."""

MOST_IDS = 16384
"""Ids that are compared with each other in one launch: work grows with its square, and beyond this one it would be the
larger part of a layer's. More of them, in a table of more rows than that, take several launches."""


class CudaRows:
    """`Backend.sum_rows` of float32 and float64, and `Backend.scatter_add` of these and, in float32, of half precision.

    Parameters
    ----------
    kernels : Kernels
    """

    def __init__(self, kernels: Kernels) -> None:
        self._xp, self._kernels = kernels.xp, kernels

    def sum(self, x: Array, out: Array | None = None) -> Array:
        """See `Backend.sum_rows`."""
        x, (rows, columns) = self._xp.ascontiguousarray(x), x.shape
        direct = out is not None and out.dtype == x.dtype and out.flags.c_contiguous
        sums = out if direct else self._xp.empty(columns, x.dtype)
        if columns:
            grid, shared = (-(-columns // COLUMNS), COLUMNS * GROUPS), COLUMNS * GROUPS * x.itemsize
            self._kernels.launch("sum_rows", grid, (sums, x, np.int64(rows), np.int32(columns)), shared=shared)
        if out is None or direct:
            return sums
        out[...] = sums
        return out

    def scatter_add(self, target: Array, ids: Array, values: Array, anew: bool) -> None:
        """See `Backend.scatter_add`."""
        if target.size == 0:
            return
        xp, (V, M), D = self._xp, (target.shape[0], ids.shape[0]), prod(target.shape[1:])
        into = xp.ascontiguousarray(target, _wide(target.dtype))  # the target itself where it is that already
        ids, values = xp.ascontiguousarray(ids, np.int64), xp.ascontiguousarray(values, into.dtype)
        by_row = min(M, MOST_IDS) >= V
        if anew and not by_row:
            into.fill(0)
            anew = False
        lanes = min(THREADS, 1 << (D - 1).bit_length())
        shared = THREADS * into.itemsize + 4 * (TILE + TILE // 32)
        step = M if by_row else MOST_IDS
        for first in range(0, M, max(1, step)):
            last = min(first + step, M)
            blocks = (V if by_row else last - first, -(-D // (4 * lanes)))
            numbers = (*map(np.int64, (first, last, V)), *map(np.int32, (D, lanes)), np.bool_(by_row), np.bool_(anew))
            self._kernels.launch("scatter_add", (blocks, THREADS), (into, ids, values, *numbers), shared=shared)
        if into is not target:
            target[...] = into


def _wide(dtype: Any) -> Any:
    """The dtype to add up in."""
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
