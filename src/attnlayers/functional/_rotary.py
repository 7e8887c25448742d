"""Rotary positions: features in pairs, turned by an angle that grows with the position."""

from typing import NamedTuple

import numpy as np

from attnbackends import Array, Backend

from .checks import check, check_gradient
from .dtypes import narrow, wide, widen
from .integers import integer


class SavedRotary(NamedTuple):
    """What `rotary_backward` needs."""

    backend: Backend
    x: Array
    cos: Array  # broadcasts to (..., T, size / 2)
    sin: Array
    interleaved: bool


def rotary(
    x: Array, positions: Array, *, base: float = 10000.0, interleaved: bool = False, size: int | None = None
) -> tuple[Array, SavedRotary]:
    """Turn pair i of the features by the angle ``position * base**(-2 * i / size)``.

    The product of a query and a key that were turned depends on the distance of their positions alone.

    Parameters
    ----------
    x : array (..., T, D)
        Queries or keys.
    positions : integer array (T,) or (N, T)
        With (N, T), N is the first axis of x.
    base : float
    interleaved : bool
        A pair is features 2 i and 2 i + 1 (RoFormer, GPT-J) instead of i and i + size / 2 (GPT-NeoX, LLaMA).
    size : int, optional
        Features that are turned, the first ones; even. Default: all.

    Returns
    -------
    out : array (..., T, D)
    saved : SavedRotary

    References
    ----------
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> rotary(np.array([[1.0, 0.0]]), np.array([2]))[0].round(3) + 0.0   # by 2 radians
    array([[-0.416,  0.909]])
    """
    backend = check(x=(x, "* T D"), positions=(positions, "* T: int"))
    xp = backend.xp
    D = x.shape[-1]
    size = D if size is None else integer("size", size, least=0)
    if size > D or size % 2:
        raise ValueError(f"`size` must be even and at most D = {D}, got {size}: pass the features to turn as size=")
    if positions.ndim == 2 and (x.ndim < 3 or positions.shape[0] != x.shape[0]):
        raise ValueError(
            f"`positions` must have shape (T,) or (N, T) to go with x {tuple(x.shape)}, got {tuple(positions.shape)}"
        )
    if positions.ndim > 2:
        raise ValueError(f"`positions` must have shape (T,) or (N, T), got {tuple(positions.shape)}")
    # In float64, for an angle of 10,000 radians has few digits behind the point in float32.
    speeds = backend.asarray(base ** (-np.arange(0, size, 2) / max(1, size)), like=x)
    angles = xp.astype(positions, speeds.dtype)[..., None] * speeds  # (T, size / 2) or (N, T, size / 2)
    if positions.ndim == 2:
        angles = xp.reshape(angles, (x.shape[0], *(1,) * (x.ndim - 3), *angles.shape[1:]))
    cos, sin = (xp.astype(f(angles), wide(backend, x.dtype), copy=False) for f in (xp.cos, xp.sin))
    saved = SavedRotary(backend, x, cos, sin, interleaved)
    return _turn(saved, x, sin), saved


def rotary_backward(saved: SavedRotary, dout: Array) -> Array:
    """Gradient of `rotary`: dout (..., T, D) -> dx (..., T, D), turned back."""
    check_gradient("dout", dout, like=saved.x)
    return _turn(saved, dout, -saved.sin)


def _turn(saved: SavedRotary, x: Array, sin: Array) -> Array:
    backend, cos = saved.backend, saved.cos
    half = cos.shape[-1]
    if saved.interleaved:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    else:
        first, second = slice(0, half), slice(half, 2 * half)
    a, b = widen(backend, x[..., first]), widen(backend, x[..., second])
    out = backend.empty(tuple(x.shape), like=x)
    out[..., first] = narrow(backend, a * cos - b * sin, x.dtype)
    out[..., second] = narrow(backend, b * cos + a * sin, x.dtype)
    out[..., 2 * half :] = x[..., 2 * half :]
    return out
