"""Small operations on arrays that several functions share; those over rows go in chunks that stay in a core's cache."""

from collections.abc import Callable
from math import prod
from typing import Any

from attnbackends import Array, Backend

from .dtypes import narrow, wide, widen


def or_zero(backend: Backend, keep: Array, x: Array) -> Array:
    """`x` where a boolean says so, else 0, whatever stands there: 0 times NaN would be NaN."""
    return narrow(backend, backend.xp.where(keep, x, 0), x.dtype)  # CuPy's is float32 for bfloat16


def widen_seen(backend: Backend, x: Array, mask: Array | None) -> Array:
    """x (N, T_k, ·) in the dtype to compute in, 0 where nothing attends to it: 0 times NaN would be NaN."""
    x = widen(backend, x)
    return x if mask is None else or_zero(backend, mask[..., None], x)


def over_rows(
    backend: Backend, function: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...], outs: tuple[Array, ...]
) -> None:
    """Write what `function` returns for chunks of some rows.

    Parameters
    ----------
    backend : Backend
    function : callable
        Takes a chunk of each of `arrays`, in the dtype to compute in, and returns one for each of `outs`.
    arrays, outs : tuples of arrays (M, ·)
    """
    rows = arrays[0].shape[0]
    numbers = sum(prod(array.shape[1:]) for array in (*arrays, *outs))
    touched = 2 * numbers * backend.bits(outs[0].dtype) // 8

    def chunk(m: slice) -> None:
        results = function(*(widen(backend, array[m, ...]) for array in arrays))
        for out, result in zip(outs, results, strict=True):
            out[m, ...] = backend.xp.astype(result, out.dtype, copy=False)

    backend.map(chunk, backend.chunks(rows, touched))


def elementwise(backend: Backend, function: Callable[..., Any], *arrays: Array, count: int = 1) -> tuple[Array, ...]:
    """`count` results of an element-wise function of arrays of one shape, each in the dtype of the first."""
    flat = tuple(backend.xp.reshape(array, (-1,)) for array in arrays)
    outs = tuple(backend.empty(flat[0].shape, like=arrays[0]) for _ in range(count))
    over_rows(backend, function, flat, outs)
    return tuple(backend.xp.reshape(out, arrays[0].shape) for out in outs)


def sigmoid(xp: Any, x: Array) -> Array:
    """``1 / (1 + exp(-x))``, for x of any size: there is no exponential that could overflow."""
    return 0.5 * xp.tanh(0.5 * x) + 0.5


def flat_rows(backend: Backend, x: Array) -> Array:
    """(..., D) -> (M, D)."""
    return backend.xp.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))


def wide_empty(backend: Backend, shape: tuple[int, ...], like: Array) -> Array:
    """Room for numbers in the dtype to compute in."""
    return backend.empty(shape, like=like, dtype=wide(backend, like.dtype))


def row_sums(backend: Backend, x: Array) -> Array:
    """Sum over the last axis, which stays: (..., T) -> (..., 1). A product with ones takes a third of NumPy's sum."""
    ones = backend.empty((x.shape[-1], 1), like=x)
    ones[...] = 1
    return backend.matmul(x, ones)
