"""Rows of a table, by id."""

from math import prod
from typing import NamedTuple

from attnbackends import Array, Backend

from .arrays import flat_rows, wide_empty
from .checks import check
from .dtypes import wide, widen


class SavedEmbedding(NamedTuple):
    """What `embedding_backward` needs."""

    backend: Backend
    W: Array
    ids: Array  # (M,)
    shape: tuple[int, ...]


def embedding(W: Array, ids: Array) -> tuple[Array, SavedEmbedding]:
    """The rows of `W` that `ids` name.

    Parameters
    ----------
    W : array (V, D)
    ids : integer array (...)
        From 0 to V - 1.

    Returns
    -------
    out : array (..., D)
    saved : SavedEmbedding

    Raises
    ------
    IndexError
        For an id outside the table; from a device when a value is next read (`Backend.take_rows`).

    Examples
    --------
    >>> import numpy as np
    >>> embedding(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1, 0]))[0]
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """
    backend = check(W=(W, "V D"), ids=(ids, "*: int"))
    xp = backend.xp
    flat = xp.astype(xp.reshape(ids, (prod(ids.shape),)), xp.int64, copy=False)
    rows = backend.take_rows(W, flat, "ids", "give W a row for each id, or leave the id out")
    out = xp.reshape(rows, (*ids.shape, W.shape[1]))
    return out, SavedEmbedding(backend, W, flat, tuple(out.shape))


def embedding_backward(saved: SavedEmbedding, dout: Array, out: Array | None = None) -> Array:
    """Gradient of `embedding`: dout (..., D) -> dW (V, D).

    A table is large and its gradient mostly zeros: `out`, if given, is overwritten and returned.
    """
    backend, W = saved.backend, saved.W
    xp = backend.xp
    check(W=(W, "V D"), dout=(dout, "* D"))
    if tuple(dout.shape) != saved.shape:
        raise ValueError(f"`dout` must have the shape of the output, {saved.shape}, got {tuple(dout.shape)}")
    rows = flat_rows(backend, dout)
    if wide(backend, W.dtype) != W.dtype:
        total = wide_empty(backend, W.shape, W)
        backend.scatter_add(total, saved.ids, widen(backend, rows), anew=True)
        dW = xp.astype(total, W.dtype)
        if out is None:
            return dW
        out[...] = dW
        return out
    if out is None:
        out = backend.empty(W.shape, like=W)
    backend.scatter_add(out, saved.ids, rows, anew=True)
    return out
