"""Small operations on arrays that several functions share; those over rows go in chunks that stay in a core's cache."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from attnbackends import Array, Backend, DType, float_bits

from .dtypes import narrow, wide, widen


def or_zero(backend: Backend, keep: Array, x: Array) -> Array:
    """`x` where a boolean says so, else 0, whatever stands there: 0 times NaN would be NaN."""
    return narrow(backend, backend.xp.where(keep, x, 0), x.dtype)  # CuPy's is float32 for bfloat16


def widen_seen(backend: Backend, x: Array, mask: Array | None) -> Array:
    """x (N, T_k, ·) in the dtype to compute in, 0 where nothing attends to it: 0 times NaN would be NaN."""
    x = widen(backend, x)
    return x if mask is None else or_zero(backend, mask[..., None], x)


def over_rows(
    backend: Backend,
    function: Callable[..., tuple[Array, ...]],
    arrays: tuple[Array, ...],
    results: tuple[tuple[tuple[int, ...], DType], ...],
) -> tuple[Array, ...]:
    """What `function` returns for all rows, made from chunks of some of them.

    Parameters
    ----------
    backend : Backend
    function : callable
        Takes a chunk of each of `arrays`, in the dtype to compute in, and returns arrays that are not among them.
    arrays : tuple of arrays (M, ·)
    results : tuple of (tuple of int, dtype)
        Shape of a row and dtype of each result.
    """
    rows = arrays[0].shape[0]
    numbers = sum(prod(array.shape[1:]) for array in arrays) + sum(prod(row) for row, _ in results)
    pieces = backend.chunks(rows, 2 * numbers * float_bits(backend.xp, results[0][1]) // 8)

    def compute(*parts: Array) -> list[Array]:
        found = function(*(widen(backend, part) for part in parts))
        return [narrow(backend, array, dtype) for array, (_, dtype) in zip(found, results, strict=True)]

    if len(pieces) == 1:  # no copy, and for a small array half of the time
        return tuple(compute(*arrays))
    outs = [backend.empty((rows, *row), like=arrays[0], dtype=dtype) for row, dtype in results]

    def chunk(m: slice) -> None:
        for out, found in zip(outs, compute(*(array[m, ...] for array in arrays)), strict=True):
            out[m, ...] = found

    backend.map(chunk, pieces)
    return tuple(outs)


def elementwise(backend: Backend, function: Callable[..., Any], *arrays: Array, count: int = 1) -> tuple[Array, ...]:
    """`count` results of an element-wise function of arrays of one shape, each in the dtype of the first."""
    flat = tuple(backend.xp.reshape(array, (-1,)) for array in arrays)
    outs = over_rows(backend, function, flat, (((), arrays[0].dtype),) * count)
    return tuple(backend.xp.reshape(out, arrays[0].shape) for out in outs)


def sigmoid(xp: Any, x: Array) -> Array:
    """``1 / (1 + exp(-x))``, for x of any size: there is no exponential that could overflow."""
    y = xp.tanh(0.5 * x)
    y *= 0.5
    y += 0.5
    return y


def flat_rows(backend: Backend, x: Array) -> Array:
    """(..., D) -> (M, D)."""
    return backend.xp.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))


def wide_empty(backend: Backend, shape: tuple[int, ...], like: Array) -> Array:
    """Room for numbers in the dtype to compute in."""
    return backend.empty(shape, like=like, dtype=wide(backend, like.dtype))


def row_shift(xp: Any, scores: Array, least: Array | None = None) -> tuple[Array, Array]:
    """What exp of scores (..., T) needs so that it cannot overflow.

    Parameters
    ----------
    xp : namespace
    scores : array (..., T)
        T is 1 or more.
    least : array (..., 1), optional
        What the largest score counts as at least: a sink, or the largest of the scores before these.

    Returns
    -------
    top : array (..., 1)
        The largest score of each row, -inf where there is none.
    shift : array (..., 1)
        What to lower the scores by: `top`, and 0 for -inf.
    """
    top = xp.max(scores, axis=-1, keepdims=True)
    if least is not None:
        top = xp.maximum(top, least)
    return top, finite(xp, top)


def finite(xp: Any, x: Array) -> Array:
    """x with 0 for minus infinity."""
    return xp.where(x == -xp.inf, xp.zeros_like(x), x)


def softmax_vjp(backend: Backend, weights: Array, dweights: Array) -> Array:
    """Turn the gradient of weights (..., T) into that of the scores whose softmax they are, in place."""
    dweights -= narrow(backend, backend.vecdot(weights, dweights), dweights.dtype)[..., None]
    dweights *= weights
    return dweights


def places(out: Sequence[Array] | None, **shapes: tuple[int, ...]) -> tuple[Array | None, ...]:
    """Where gradients of parameters of these shapes go: the arrays of `out`, after a check, or None each."""
    if out is None:
        return (None,) * len(shapes)
    found = [tuple(array.shape) for array in out]
    if found != (wanted := [tuple(shape) for shape in shapes.values()]):
        raise ValueError(f"`out` must hold arrays of the shapes of {', '.join(shapes)}, {wanted}, got {found}")
    return tuple(out)


def unrounded(out: Array | None, dtype: DType) -> Array | None:
    """`out` where numbers of a dtype can be written there as they are, else None."""
    return out if out is not None and out.dtype == dtype else None


def put(gradient: Array, out: Array | None) -> Array:
    """A gradient in `out`, where that is given and is not what it was written to."""
    if out is None or gradient is out:
        return gradient
    out[...] = gradient
    return out


def sum_of_rows(backend: Backend, x: Array, dtype: DType, out: Array | None) -> Array:
    """Sum over the rows, (M, H) -> (H,), in a dtype, and in `out` where that is given."""
    return put(narrow(backend, backend.sum_rows(x, out=unrounded(out, x.dtype)), dtype), out)


def row_sums(backend: Backend, x: Array) -> Array:
    """Sum over the last axis, which stays: (..., T) -> (..., 1). A product with ones takes a third of NumPy's sum."""
    ones = backend.empty((x.shape[-1], 1), like=x)
    ones[...] = 1
    return backend.matmul(x, ones)
