"""Normalisation over the last axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from attnbackends import Array, Backend

from .arrays import flat_rows, over_rows, places, sum_of_rows
from .checks import check, check_gradient
from .dtypes import wide, widen


class SavedNorm(NamedTuple):
    """What `layer_norm_backward` and `rms_norm_backward` need."""

    backend: Backend
    x: Array
    gain: Array
    normal: Array  # (M, D), x normalised, in the dtype to compute in
    inverse: Array  # (M, 1), 1 / standard deviation
    centred: bool


def layer_norm(x: Array, gain: Array, bias: Array, *, epsilon: float = 1e-5) -> tuple[Array, SavedNorm]:
    """``(x - mean) / sqrt(variance + epsilon) * gain + bias`` over the last axis.

    Parameters
    ----------
    x : array (..., D)
    gain, bias : array (D,)
    epsilon : float

    Returns
    -------
    out : array (..., D)
    saved : SavedNorm

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), np.zeros(2), epsilon=0.0)[0]
    array([-1.,  1.])
    """
    backend = check(x=(x, "* D"), gain=(gain, "D"), bias=(bias, "D"))
    return _normalize(backend, x, gain, bias, epsilon, centred=True)


def layer_norm_backward(
    saved: SavedNorm, dout: Array, *, out: Sequence[Array] | None = None
) -> tuple[Array, Array, Array]:
    """Gradients of `layer_norm`: dout (..., D) -> dx (..., D), dgain (D,), dbias (D,).

    dgain and dbias are written into the arrays of `out`, if given, and these returned.
    """
    into_gain, into_bias = places(out, gain=saved.gain.shape, bias=saved.gain.shape)
    dx, dgain, drows = _backward(saved, dout, into_gain)
    return dx, dgain, sum_of_rows(saved.backend, drows, dout.dtype, into_bias)


def rms_norm(x: Array, gain: Array, *, epsilon: float = 1e-6) -> tuple[Array, SavedNorm]:
    """``x / sqrt(mean(x**2) + epsilon) * gain`` over the last axis.

    Parameters
    ----------
    x : array (..., D)
    gain : array (D,)
    epsilon : float

    Returns
    -------
    out : array (..., D)
    saved : SavedNorm

    References
    ----------
    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> rms_norm(np.array([3.0, -3.0]), np.ones(2), epsilon=0.0)[0]
    array([ 1., -1.])
    """
    backend = check(x=(x, "* D"), gain=(gain, "D"))
    return _normalize(backend, x, gain, None, epsilon, centred=False)


def rms_norm_backward(saved: SavedNorm, dout: Array, *, out: Sequence[Array] | None = None) -> tuple[Array, Array]:
    """Gradients of `rms_norm`: dout (..., D) -> dx (..., D), dgain (D,), which is written into `out`, if given."""
    (into_gain,) = places(out, gain=saved.gain.shape)
    dx, dgain, _ = _backward(saved, dout, into_gain)
    return dx, dgain


def _normalize(
    backend: Backend, x: Array, gain: Array, bias: Array | None, epsilon: float, *, centred: bool
) -> tuple[Array, SavedNorm]:
    xp = backend.xp
    rows = flat_rows(backend, x)
    wide_gain, wide_bias = widen(backend, gain), None if bias is None else widen(backend, bias)

    def chunk(x: Array) -> tuple[Array, Array, Array]:
        if centred:
            x = x - xp.mean(x, axis=-1, keepdims=True)
        scale = 1 / xp.sqrt(backend.vecdot(x, x)[..., None] / x.shape[-1] + epsilon)
        normal = x * scale
        scaled = normal * wide_gain
        if wide_bias is not None:
            scaled += wide_bias
        return scaled, normal, scale

    row, wide_dtype = (rows.shape[1],), wide(backend, x.dtype)
    kinds = (row, x.dtype), (row, wide_dtype), ((1,), wide_dtype)
    out, normal, inverse = over_rows(backend, chunk, (rows,), kinds)
    return xp.reshape(out, x.shape), SavedNorm(backend, x, gain, normal, inverse, centred)


def _backward(saved: SavedNorm, dout: Array, into_gain: Array | None) -> tuple[Array, Array, Array]:
    """dx, dgain and dout as rows (M, D) in the dtype to compute in."""
    backend, xp = saved.backend, saved.backend.xp
    check_gradient("dout", dout, like=saved.x)
    drows: Any = widen(backend, flat_rows(backend, dout))
    gain = widen(backend, saved.gain)

    def chunk(d: Array, normal: Array, inverse: Array) -> tuple[Array]:
        d = d * gain
        d = d - normal * xp.mean(d * normal, axis=-1, keepdims=True) - _mean(xp, d, saved.centred)
        return (d * inverse,)

    arrays = drows, saved.normal, saved.inverse
    (dx,) = over_rows(backend, chunk, arrays, (((drows.shape[1],), dout.dtype),))
    dgain = sum_of_rows(backend, drows * saved.normal, dout.dtype, into_gain)
    return xp.reshape(dx, saved.x.shape), dgain, drows


def _mean(xp: Any, d: Array, centred: bool) -> Array | float:
    """The part of the gradient that went through the mean; it is that of d alone, for `normal` has mean 0."""
    return xp.mean(d, axis=-1, keepdims=True) if centred else 0.0
