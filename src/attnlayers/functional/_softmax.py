"""Softmax over the last axis."""

from typing import NamedTuple

from attnbackends import Array, Backend

from .arrays import flat_rows, softmax_vjp
from .checks import check
from .dtypes import narrow, wide, widen


class SavedSoftmax(NamedTuple):
    """What `softmax_backward` needs."""

    backend: Backend
    out: Array  # not the caller's, who may write to it


def softmax(x: Array) -> tuple[Array, SavedSoftmax]:
    """``exp(x) / sum(exp(x))`` over the last axis, safe for any finite `x`.

    Parameters
    ----------
    x : array (..., T)
        Floating point; half precision is computed in float32. -inf has weight 0, and a row of nothing
        else becomes 0.

    Returns
    -------
    out : array (..., T)
    saved : SavedSoftmax

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([1e4, 1e4]))[0]
    array([0.5, 0.5])
    """
    backend = check(x=(x, "... T"))
    out, rows = _own_rows(backend, x)
    backend.map(lambda chunk: backend.softmax(rows[chunk, ...]), _chunks(backend, rows))
    out = narrow(backend, out, x.dtype)
    return backend.xp.astype(out, out.dtype, copy=True), SavedSoftmax(backend, out)


def softmax_backward(saved: SavedSoftmax, dout: Array) -> Array:
    """Gradient of `softmax`: dout (..., T) -> dx (..., T)."""
    backend = saved.backend
    check(out=(saved.out, "... T"), dout=(dout, "... T"))
    dx, rows = _own_rows(backend, dout)
    weights = backend.xp.reshape(widen(backend, saved.out), rows.shape)
    backend.map(lambda chunk: softmax_vjp(backend, weights[chunk, ...], rows[chunk, ...]), _chunks(backend, rows))
    return narrow(backend, dx, dout.dtype)


def _own_rows(backend: Backend, x: Array) -> tuple[Array, Array]:
    """A copy of x (..., T) in the dtype to compute in, and the same memory as (M, T)."""
    own = backend.empty(x.shape, like=x, dtype=wide(backend, x.dtype))
    own[...] = widen(backend, x)
    return own, flat_rows(backend, own)


def _chunks(backend: Backend, rows: Array) -> list[slice]:
    return backend.chunks(rows.shape[0], 2 * rows.shape[1] * backend.xp.finfo(rows.dtype).bits // 8)
