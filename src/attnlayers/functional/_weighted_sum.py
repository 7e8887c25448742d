"""A sum over time, weighted."""

from typing import NamedTuple

from attnbackends import Array, Backend

from .checks import check
from .dtypes import narrow, widen


class SavedWeightedSum(NamedTuple):
    """What `weighted_sum_backward` needs."""

    backend: Backend
    values: Array
    weights: Array


def weighted_sum(values: Array, weights: Array) -> tuple[Array, SavedWeightedSum]:
    """Sum `values` over time with `weights`.

    Parameters
    ----------
    values : array (..., T, H)
    weights : array (..., T)

    Returns
    -------
    out : array (..., H)
    saved : SavedWeightedSum

    References
    ----------
    Deep Learning from Scratch 2, section 8.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_sum(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 0.5]))[0]
    array([2.5, 4. ])
    """
    backend = check(values=(values, "... T H"), weights=(weights, "... T"))
    xp = backend.xp
    rows = widen(backend, weights)[..., None, :]
    out = xp.matmul(rows, widen(backend, values))  # (..., 1, T) x (..., T, H) -> (..., 1, H)
    return narrow(backend, out[..., 0, :], values.dtype), SavedWeightedSum(backend, values, weights)


def weighted_sum_backward(saved: SavedWeightedSum, dout: Array) -> tuple[Array, Array]:
    """Gradients of `weighted_sum`: dout (..., H) -> dvalues (..., T, H), dweights (..., T)."""
    backend, values, weights = saved.backend, saved.values, saved.weights
    check(values=(values, "... T H"), dout=(dout, "... H"))
    dvalues = weights[..., None] * dout[..., None, :]  # (..., T, 1) * (..., 1, H) -> (..., T, H)
    column = widen(backend, dout)[..., None]
    dweights = backend.xp.matmul(widen(backend, values), column)  # (..., T, H) x (..., H, 1) -> (..., T, 1)
    return dvalues, narrow(backend, dweights[..., 0], weights.dtype)
