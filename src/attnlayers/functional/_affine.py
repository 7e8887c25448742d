"""Affine maps."""

from collections.abc import Sequence
from typing import NamedTuple

from attnbackends import Array, Backend

from .arrays import flat_rows, places, put, sum_of_rows, unrounded
from .checks import check
from .dtypes import narrow, operand


class SavedAffine(NamedTuple):
    """What `affine_backward` needs."""

    backend: Backend
    x: Array
    W: Array
    biased: bool


def affine(x: Array, W: Array, b: Array | None = None) -> tuple[Array, SavedAffine]:
    """``x @ W + b`` over the last axis.

    Parameters
    ----------
    x : array (..., D)
    W : array (D, H)
    b : array (H,), optional

    Returns
    -------
    out : array (..., H)
    saved : SavedAffine
    """
    backend = check(x=(x, "* D"), W=(W, "D H"), b=(b, "H"))
    rows, own_W = operand(backend, flat_rows(backend, x)), operand(backend, W)
    out = backend.matmul(rows, own_W, dtype=x.dtype if b is None else None)  # (M, D) x (D, H) -> (M, H)
    if b is not None:
        out += operand(backend, b)
        out = narrow(backend, out, x.dtype)
    return backend.xp.reshape(out, (*x.shape[:-1], W.shape[1])), SavedAffine(backend, x, W, b is not None)


def affine_backward(saved: SavedAffine, dout: Array, *, out: Sequence[Array] | None = None) -> tuple[Array, ...]:
    """Gradients of `affine`: dout (..., H) -> dx (..., D), dW (D, H), and db (H,) if there was a bias.

    dW and db are written into the arrays of `out`, if given, and these returned.
    """
    backend, x, W = saved.backend, saved.x, saved.W
    xp = backend.xp
    check(x=(x, "... D"), W=(W, "D H"), dout=(dout, "... H"))
    shapes = {"W": W.shape, "b": W.shape[1:]} if saved.biased else {"W": W.shape}
    into_W, *into_b = places(out, **shapes)
    rows, own_W, drows = (operand(backend, array) for array in (flat_rows(backend, x), W, flat_rows(backend, dout)))
    dx = backend.matmul(drows, xp.matrix_transpose(own_W), dtype=x.dtype)  # (M, H) x (H, D) -> (M, D)
    direct = unrounded(into_W, rows.dtype)
    dW = backend.matmul(xp.matrix_transpose(rows), drows, out=direct, dtype=x.dtype)  # (D, M) x (M, H) -> (D, H)
    dx, dW = xp.reshape(dx, x.shape), put(dW, into_W)
    if not saved.biased:
        return dx, dW
    return dx, dW, sum_of_rows(backend, drows, x.dtype, into_b[0])
