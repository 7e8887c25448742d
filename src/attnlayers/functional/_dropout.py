"""Dropout."""

from collections.abc import Callable
from typing import NamedTuple

from attnbackends import Array, Backend

from .checks import check


class SavedDropout(NamedTuple):
    """What `dropout_backward` needs: 0 where a value was dropped, else what it was multiplied by."""

    backend: Backend
    factor: Array


def dropout(x: Array, dropout: float, draw: Callable[..., Array]) -> tuple[Array, SavedDropout]:
    """Set a share of the values to 0 and scale the others up, so that the mean stays.

    Parameters
    ----------
    x : array (...)
    dropout : float
        Share of the values that are dropped, 0 <= dropout < 1.
    draw : callable
        Called with a shape and `x`; uniform numbers over [0, 1) on its device: ``attnbackends.Uniform(backend, seed)``.

    Returns
    -------
    out : array (...)
    saved : SavedDropout
    """
    backend = check(x=(x, "*"))
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}")
    xp = backend.xp
    kept = xp.astype(draw(tuple(x.shape), x) >= dropout, x.dtype)
    saved = SavedDropout(backend, xp.astype(kept * (1 / (1 - dropout)), x.dtype, copy=False))
    return x * saved.factor, saved


def dropout_backward(saved: SavedDropout, dout: Array) -> Array:
    """Gradient of `dropout`: dout (...) -> dx (...)."""
    check(factor=(saved.factor, "..."), dout=(dout, "..."))
    return dout * saved.factor
