"""Matrix products on a CPU: pieces for threads, and within a thread parts that BLAS has its best kernels for."""

from functools import cache
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np

from .._base import Array

PIECE_FLOPS = 8_000_000
"""What a piece of a product must amount to before it is worth a thread: about 0.1 ms of one core."""

MOST_PIECES = 4
"""Pieces to make of a product of matrices at most: BLAS arranges the other operand anew for each, in eight pieces a
third of the time of a gradient of recurrent weights."""

PIECE_READ = 2_000_000
"""Bytes of a matrix that make its product with one row worth a thread: about 0.2 ms of one core where they come from
memory, as the weights of a language model do for each token."""

ROW_READ = 1_000_000
"""Bytes of a matrix from which on BLAS's own threads share its product with one row: about 0.1 ms of one core."""

ROW_GRAIN = 64
"""Columns of such a product that stay with one thread, a multiple of what the kernels of OpenBLAS take at a time: it
cuts between any two, and sums in another order what does not fill its vectors."""

LONG_INNER = 2
"""How many times the longer side of a product its inner axis must be to be cut itself: no operand is arranged twice
then, and the sum of what the pieces make is the smaller price."""

TINY_MULTIPLICATIONS = 9216
"""Multiplications of a product of which no BLAS makes more than one thread's work: OpenBLAS draws this line for one
row."""

PART_MULTIPLICATIONS = 1_000_000
"""Rows x columns x inner of a product up to which OpenBLAS arranges no operand anew, on some cores."""

PART_CORES = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""What OpenBLAS calls them: those with AVX-512. There such products run at 110 GFLOP/s, larger ones at 90 to 100."""

PART_ROWS = (32, 16, 8)
"""Rows of a part: the first number that fits."""

BLOCKS = ((16, 64), (16, 32), (8, 32), (8, 16))
"""Rows of a part and columns of a block of an operand that many products share, the first that fit."""

NARROWEST, NARROW_INNER = 16, 1024
"""Columns of a block, as a vector of AVX-512 takes them, and the longest inner axis for which blocks narrower than they
might be are as fast."""

VECTOR_BYTES = 64
"""Bytes of a vector of AVX-512 and of a line of the cache. Where the rows of a block begin at multiples of it, no
vector is read from two lines: products of (64, 512) x (512, 16) take 0.87 of the time, of (64, 145) x (145, 64) 0.75
(benchmarks/NOTES.md, "One LSTM")."""

FEW_PRODUCT_ROWS = 128
"""Rows of a product whose second operand is too large for parts of rows alone: with more of them, arranging it once is
faster."""


def split(count: int, pieces: int) -> list[slice]:
    """``range(count)`` in `pieces` slices of about equal length."""
    edges = [count * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def wants_parts(libraries: list[dict[str, Any]]) -> bool:
    """Whether parts are faster than a whole, from threadpoolctl's description of the BLAS libraries."""
    return bool(libraries) and all(
        library["internal_api"] == "openblas" and library.get("architecture") in PART_CORES for library in libraries
    )


def can_share_rows(libraries: list[dict[str, Any]]) -> bool:
    """Whether BLAS may share the product of one row among its threads and give the same bits for any number of them."""
    return bool(libraries) and all(library["internal_api"] == "openblas" for library in libraries)


def is_large_row(b: Array, out: Array) -> bool:
    """Whether a product is that of one row with a matrix large enough for BLAS's own threads."""
    return out.ndim == 2 and out.shape[0] == 1 and min(b.shape) >= ROW_GRAIN and bool(b.nbytes >= ROW_READ)


@cache
def shares_of_row(columns: int, threads: int) -> tuple[slice, list[slice]]:
    """Columns of such a product for BLAS's threads to share, and for one thread: each number is summed in the same
    order for any number of threads."""
    even = columns - columns % ROW_GRAIN
    shared = even - even % (ROW_GRAIN * threads)
    edges = sorted({shared, even, columns})
    return slice(shared), [slice(begin, end) for begin, end in pairwise(edges)]


def pieces(a: Array, b: Array, out: Array) -> tuple[list[tuple[Array, Array, Array]], list[Array]]:
    """A product as products that threads share, and what is to be added to `out` after them.

    Cut along the longest axis of `out` that both operands allow, or along a long inner axis.
    """
    inner = a.shape[-1]
    flops = 2 * out.size * inner
    rows, columns = out.shape[-2:]
    if rows == 1 and out.ndim == 2:
        return _pieces_of_row(a, b, out)
    if flops < 2 * PIECE_FLOPS:
        return [(a, b, out)], []
    if out.ndim > 2:
        stack = out.shape[0]
        shares = split(stack, min(stack, ceil(flops / PIECE_FLOPS)))
        along = [x.ndim == out.ndim and x.shape[0] == stack for x in (a, b)]
        return [(a[p] if along[0] else a, b[p] if along[1] else b, out[p]) for p in shares], []
    most = min(MOST_PIECES, ceil(flops / PIECE_FLOPS))
    if inner >= LONG_INNER * max(rows, columns):
        sums = [np.empty(out.shape, dtype=out.dtype) for _ in range(min(most, ceil(inner / 64)) - 1)]
        shares = split(inner, len(sums) + 1)
        return [(a[:, p], b[p], place) for p, place in zip(shares, [out, *sums], strict=True)], sums
    count = min(most, ceil(max(rows, columns) / 64))
    if rows >= columns:
        return [(a[p], b, out[p]) for p in split(rows, count)], []
    return [(a, b[:, p], out[:, p]) for p in split(columns, count)], []


def _pieces_of_row(a: Array, b: Array, out: Array) -> tuple[list[tuple[Array, Array, Array]], list[Array]]:
    """The same of one row and a matrix, each piece of which lies in one place: it is read once and in order."""
    inner, columns = b.shape
    count = min(MOST_PIECES, b.nbytes // PIECE_READ)
    if count < 2:
        return [(a, b, out)], []
    if b.strides[0] < b.strides[1] or inner < 64 * count:  # column by column, or few long rows
        return [(a, b[:, p], out[:, p]) for p in split(columns, min(count, columns))], []
    sums = [np.empty(out.shape, dtype=out.dtype) for _ in range(count - 1)]
    shares = zip(split(inner, count), [out, *sums], strict=True)
    return [(a[:, p], b[p], place) for p, place in shares], sums


def multiply_in_parts(a: Array, b: Array, out: Array) -> None:
    """``np.matmul(a, b, out=out)`` of parts that are small enough to need no operand arranged anew."""
    (M, K), N = a.shape[-2:], b.shape[-1]
    turned = b.strides[-1] != b.itemsize  # or of an order that needs arranging in any case
    rows, columns = (M, N) if turned or M == 1 or M * K * N <= PART_MULTIPLICATIONS else _part(M, K, N)
    if rows >= M and columns >= N:
        np.matmul(a, b, out=out)
        return
    stack, rest = divmod(M, rows)
    if rest == 0 and columns >= N:  # an axis made two: views
        parts = a.reshape(*a.shape[:-2], stack, rows, K)
        np.matmul(parts, b[..., None, :, :], out=out.reshape(*out.shape[:-2], stack, rows, N))
        return
    whole = M - rest
    upper = a[..., :whole, :].reshape(*a.shape[:-2], stack, rows, K)
    for begin in range(0, N, columns):
        some, place = b[..., begin : begin + columns], out[..., begin : begin + columns]
        placed = place[..., :whole, :].reshape(*out.shape[:-2], stack, rows, some.shape[-1])
        np.matmul(upper, some[..., None, :, :], out=placed)
        if rest:
            np.matmul(a[..., whole:, :], some, out=place[..., whole:, :])


def _part(M: int, K: int, N: int) -> tuple[int, int]:
    """Rows and columns of the parts that a large product (M, K) x (K, N) is best made of."""
    most = PART_MULTIPLICATIONS // max(1, K)  # rows x columns
    for rows in PART_ROWS:
        if rows * N <= most:
            return rows, N
    rows = PART_ROWS[-1]
    columns = most // rows // 64 * 64
    return (rows, columns) if columns and M <= FEW_PRODUCT_ROWS else (M, N)


def in_blocks(b: Array) -> Array:
    """A second operand (..., K, N) of many products as blocks of its columns (..., J, K, n), which parts take whole.

    The last one is filled up with 0; one block is the operand itself.
    """
    *stack, K, N = b.shape
    columns = _block_columns(K, N)
    if columns == 0 or columns >= N:
        return b[..., None, :, :]
    count = ceil(N / columns)
    blocks = aligned((*stack, count, K, columns), b.dtype)
    for j in range(count):
        some = b[..., j * columns : (j + 1) * columns]
        blocks[..., j, :, : some.shape[-1]] = some
        blocks[..., j, :, some.shape[-1] :] = 0
    return blocks


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An empty array that begins at a multiple of `VECTOR_BYTES`; NumPy's own begin at multiples of 16 bytes."""
    size = prod(shape) * dtype.itemsize
    memory = np.empty(size + VECTOR_BYTES, dtype=np.uint8)
    begin = -memory.__array_interface__["data"][0] % VECTOR_BYTES
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _block_columns(K: int, N: int) -> int:
    """Columns of a block of an operand (K, N): narrower ones where they need fewer zeros; 0 for none at all."""
    for rows, columns in BLOCKS:
        if rows * columns * max(1, K) <= PART_MULTIPLICATIONS:
            widths = [columns >> i for i in range(3) if columns >> i >= NARROWEST] if K <= NARROW_INNER else [columns]
            return min(widths, key=lambda w: ceil(N / w) * w)
    return 0
