"""Clipping and Adam over all arrays of a model at once, by the kernels of ``kernels/optimizer.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .compiled import Kernels

Array = Any

CHUNK, THREADS = 2048, 256
"""Values of a chunk, and threads of a block: those of ``optimizer.cu``."""

MOST_BLOCKS = 1024
"""Blocks of a launch at most, eight for each multiprocessor of a large device; also partial sums of a norm, which every
block of the next kernel adds up again."""

MOST_TABLES = 16
"""Tables that are kept on a device: a training has two, and one more for each set of parameters that it changes by
itself."""


class CudaOptimizer:
    """`Backend.clip_norm` and `Backend.adam_step` on contiguous arrays of one dtype, float32 or float64.

    Where arrays lie is written into a table on the device, once for the same arrays.

    Parameters
    ----------
    kernels : Kernels
    """

    def __init__(self, kernels: Kernels) -> None:
        self._xp, self._kernels = kernels.xp, kernels
        self._tables: dict[tuple[Any, ...], tuple[Array, int]] = {}

    def takes(self, *rows: Sequence[Array]) -> bool:
        """Whether the kernels can be launched on these arrays."""
        dtype = rows[0][0].dtype
        return dtype.char in "fd" and all(
            array.dtype == dtype and array.flags.c_contiguous for row in rows for array in row
        )

    def clip(self, arrays: Sequence[Array], max_norm: float) -> Array:
        """See `Backend.clip_norm`."""
        dtype, count = arrays[0].dtype, np.int32(len(arrays))
        table, blocks = self._table((arrays,))
        sums, norm = self._xp.empty(blocks, dtype), self._xp.empty((), dtype)
        grid, shared, most = (blocks, THREADS), THREADS * dtype.itemsize, dtype.type(max_norm)
        self._kernels.launch("sums_of_squares", grid, (sums, table, count), shared=shared)
        self._kernels.launch("clip", grid, (norm, sums, np.int32(blocks), most, table, count), shared=shared)
        return norm

    def adam_step(
        self,
        rows: tuple[Sequence[Array], ...],
        lr: float,
        beta1: float,
        beta2: float,
        decay: float,
        decayed: Sequence[bool],
    ) -> None:
        """See `Backend.adam_step`; `rows` are the parameters and what belongs to them."""
        type_ = rows[0][0].dtype.type
        table, blocks = self._table(rows, decayed)
        numbers = (type_(number) for number in (lr, 1 - beta1, 1 - beta2, 1 - decay))
        self._kernels.launch("adam_step", (blocks, THREADS), (*numbers, table, np.int32(len(rows[0]))))

    def _table(self, rows: tuple[Sequence[Array], ...], flags: Sequence[bool] = ()) -> tuple[Array, int]:
        """What the kernels read of these arrays, and how many blocks to launch."""
        places = [[array.data.ptr for array in row] for row in rows]
        sizes = [array.size for array in rows[0]]
        key = (
            self._xp.cuda.runtime.getDevice(),
            len(rows),
            *sizes,
            *flags,
            *(place for row in places for place in row),
        )
        found = self._tables.get(key)
        if found is None:
            chunks = np.cumsum([0, *(-(-size // CHUNK) for size in sizes)])
            numbers = [*chunks.tolist(), *sizes, *(place for row in places for place in row), *map(int, flags)]
            if len(self._tables) == MOST_TABLES:
                del self._tables[next(iter(self._tables))]
            found = self._xp.asarray(np.array(numbers, np.int64)), int(min(max(1, chunks[-1]), MOST_BLOCKS))
            self._tables[key] = found
        return found
