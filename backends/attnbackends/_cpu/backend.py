"""NumPy: worker threads over BLAS, pieces that stay in a core's cache."""

import os
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from math import ceil, prod
from typing import Any

import numpy as np

from .._base import Array, DType
from .._lstm import LSTMCall, OwnLSTM
from .._machine import Machine
from .._packed_keys import PackedKeys
from .._quiet import quiet
from .._select import select_threads
from .._ufunc import UfuncBackend
from . import lstm, products
from .packed_keys import PACKED_KEYS, CpuPackedKeys
from .products import split
from .threads import Workers

PIECE_BYTES = 8 * 1024**2
"""Bytes that a piece of work may touch. Smaller ones would fit a second-level cache better, but threads then meet at
the interpreter's lock more often than the cache saves (benchmarks/NOTES.md)."""

BLOCK_BYTES = 1024 * 1024
"""Bytes of a block of scores, which several passes go over: the second-level cache of a current core. Smaller ones mean
more passes, and threads that meet at the interpreter's lock."""

BLOCK_ROWS = 256
"""Rows of a block of scores, where there are so many."""

SMALL_BYTES = 128 * 1024
"""Bytes that a piece must touch to be worth handing to a thread."""

SQUARES = 4096
"""Squares that one product adds up."""

SHORT_ROW, TURNED_SCORES = 32, range(2048, 32769)
"""Scores of a row up to which NumPy finds the largest of each row faster after rows and columns are exchanged, and how
many scores in all are worth that copy and small enough for it: (32, 32, 32) takes 0.4 of the time (benchmarks/NOTES.md,
"One attention in Python")."""

FEWEST_PIECES = 4
"""Pieces to make of work that fits one."""


@cache
def _limits(dtype: DType) -> tuple[Any, Any]:
    """The lowest number of a dtype, and the smallest positive one that is normal."""
    limits = np.finfo(dtype)
    return limits.min, limits.tiny


def _largest_of_rows(scores: Array) -> Array:
    """The maximum over the last axis, which stays: (..., T) -> (..., 1)."""
    T = scores.shape[-1]
    if T > SHORT_ROW or scores.size not in TURNED_SCORES:
        return np.maximum.reduce(scores, axis=-1, keepdims=True)
    columns = np.ascontiguousarray(scores.reshape(-1, T).T)  # (T, M)
    return np.maximum.reduce(columns, axis=0).reshape(*scores.shape[:-1], 1)


class NumpyBackend(UfuncBackend):
    """NumPy on the CPU."""

    name = "numpy"
    xp = np

    def __init__(self) -> None:
        self.workers = Workers(select_threads(os.environ))

    def asarray(self, data: Any, dtype: DType = None, like: Array | None = None) -> Array:
        return np.asarray(data, dtype=dtype)

    def _are_here(self, arrays: tuple[Array, ...]) -> bool:
        return True

    @quiet
    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        # As the base has it, in two thirds of the time of a small call: reductions without NumPy's wrappers, and limits
        # where it looks for rows that have nothing to attend to.
        if mask is not None or 0 in scores.shape or scores.itemsize < 4:
            return super().softmax(scores, mask)
        lowest, tiny = _limits(scores.dtype)
        top = _largest_of_rows(scores)
        scores -= np.maximum(top, lowest, out=top)
        np.exp(scores, out=scores)
        total = np.add.reduce(scores, axis=-1, keepdims=True)
        scores /= np.maximum(total, tiny, out=total)
        return scores

    def scatter_add(self, target: Array, ids: Array, values: Array, anew: bool = False) -> None:
        if anew:
            target[...] = 0
        # NumPy has a fast path for one axis alone: up to six times faster than add.at of whole rows.
        width = prod(target.shape[1:])
        if not target.flags.c_contiguous:
            np.add.at(target, ids, values)
            return
        flat = (ids.astype(np.intp)[:, None] * width + np.arange(width)).reshape(-1)
        np.add.at(target.reshape(-1), flat, values.reshape(-1))

    @quiet
    def vecdot(self, a: Array, b: Array) -> Array:
        return np.vecdot(a, b) if a.dtype == b.dtype and a.itemsize >= 4 else super().vecdot(a, b)

    @quiet
    def _sum_of_squares(self, array: Array) -> Array:
        if array.itemsize < 4:
            array = array.astype(np.float32)
        # Short products, added in pairs: in a long one the sum outgrows what comes, 4e-5 off for 6.5 million numbers.
        flat = array.reshape(-1, order="A") if array.flags.forc else array.reshape(-1)
        count, row_bytes = flat.size // SQUARES, SQUARES * flat.itemsize
        rows, rest = flat[: count * SQUARES].reshape(count, SQUARES), flat[count * SQUARES :]
        sums = np.empty(count + 1, dtype=array.dtype)
        pieces = self.chunks(count, row_bytes, at_least=BLOCK_BYTES // row_bytes)
        sums[count] = np.vecdot(rest, rest)
        if len(pieces) == 1:
            np.vecdot(rows, rows, out=sums[:count])
        else:
            self.map(lambda m: np.vecdot(rows[m], rows[m], out=sums[m]), pieces)
        return np.sum(sums)

    def lstm(self, call: LSTMCall) -> OwnLSTM | None:
        return lstm.forward(self, self._in_blocks, call)

    @quiet
    def matmul(self, a: Array, b: Array, out: Array | None = None, dtype: DType = None) -> Array:
        if a.itemsize < 4 or b.itemsize < 4:
            return super().matmul(a, b, out, dtype)
        if dtype is not None and not dtype == a.dtype == b.dtype:
            return self.matmul(a, b, out).astype(dtype, copy=False)
        if out is None and max(a.size * b.shape[-1], b.size * a.shape[-2]) < products.TINY_MULTIPLICATIONS:
            return np.matmul(a, b)
        if a.shape[-1] == 1:  # four times faster than BLAS is at it
            return np.multiply(a, b, out=out)
        if out is None:
            stack, other = a.shape[:-2], b.shape[:-2]
            if stack != other:
                stack = np.broadcast_shapes(stack, other)  # takes longer than a small product
            kind = a.dtype if a.dtype == b.dtype else np.result_type(a, b)
            out = np.empty((*stack, a.shape[-2], b.shape[-1]), dtype=kind)
        if self.workers.here.working:
            self._multiply(a, b, out)
        elif out.size * a.shape[-1] < products.TINY_MULTIPLICATIONS:
            np.matmul(a, b, out=out)
        else:
            self._share(a, b, out)
        return out

    def _share(self, a: Array, b: Array, out: Array) -> None:
        """A product that threads share: BLAS's own, which are awake at once, or pieces of it the workers."""
        if self._shares_rows and products.is_large_row(b, out):
            shared, others = products.shares_of_row(out.shape[1], self.workers.count)
            self.workers.by_blas(lambda: np.matmul(a, b[:, shared], out=out[:, shared]))
            if others:
                self.map(lambda n: np.matmul(a, b[:, n], out=out[:, n]), others)
            return
        pieces, sums = products.pieces(a, b, out)
        self.map(lambda piece: self._multiply(*piece), pieces)
        for some in sums:
            out += some

    @cached_property
    def _shares_rows(self) -> bool:
        return products.can_share_rows(self.workers.blas())

    def pack_keys(self, k: Array, ones: bool = False) -> PackedKeys:
        return CpuPackedKeys(self, k, ones, in_blocks=self._in_parts)

    @property
    def _in_parts(self) -> bool:
        """Whether products are made in parts, and second operands of many in blocks for them."""
        return self._multiply is products.multiply_in_parts

    def _in_blocks(self, b: Array) -> Array:
        """A second operand (..., K, N) of many products as blocks of its columns (..., J, K, n)."""
        return products.in_blocks(b) if self._in_parts else b[..., None, :, :]

    @cached_property
    def _multiply(self) -> Callable[[Array, Array, Array], object]:
        """A product (a, b, out) in one thread."""
        return products.multiply_in_parts if products.wants_parts(self.workers.blas()) else np.matmul

    def chunks(self, count: int, bytes_each: int, at_least: int = 1) -> list[slice]:
        total = count * bytes_each
        wanted = max(ceil(total / PIECE_BYTES), min(FEWEST_PIECES, total // SMALL_BYTES))
        return split(count, max(1, min(wanted, count // at_least)))

    def block_of_scores(self, rows: int, keys: int, itemsize: int) -> tuple[int, int]:
        return (
            max(BLOCK_ROWS, BLOCK_BYTES // max(1, keys * itemsize)),
            max(1, BLOCK_BYTES // max(1, rows * itemsize * PACKED_KEYS)) * PACKED_KEYS,
        )

    @quiet  # and so are the threads that help
    def map(self, function: Callable[[Any], object], pieces: Iterable[Any]) -> None:
        self.workers.map(function, pieces)

    @cached_property
    def machine(self) -> Machine:
        return CpuMachine(self)


class CpuMachine(Machine):
    """NumPy's BLAS, cores and threads."""

    backend: NumpyBackend

    def describe(self) -> dict[str, str]:
        workers = self.backend.workers
        blas = [f"{lib['internal_api']} {lib['version']} ({lib['architecture']})" for lib in workers.blas()]
        return {
            "library": f"numpy {np.__version__}",
            "device": f"CPU, {os.cpu_count()} cores",
            "BLAS": ", ".join(blas) or "not one that its threads can be counted of",
            "threads": str(workers.count),
        }

    def rounding(self) -> dict[str, str]:
        return {heading: text for heading, text in self.describe().items() if heading in ("library", "BLAS")}
