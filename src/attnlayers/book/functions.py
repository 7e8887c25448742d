"""The functions of the book's ``common.functions``."""

from typing import Any

from attnbackends import Array, backend_of

from .. import functional as F
from ..functional import arrays
from ._arrays import as_floats, ids, to_host
from .np import GPU, np

__all__ = ["GPU", "cross_entropy_error", "np", "relu", "sigmoid", "softmax"]

TINY = 1e-7
"""The book's guard against the logarithm of 0."""


def sigmoid(x: Any) -> Array:
    """``1 / (1 + exp(-x))``, for x of any size."""
    x = as_floats(x)
    return arrays.sigmoid(backend_of(x).xp, x)


def relu(x: Any) -> Array:
    """x where it is positive, else 0."""
    x = as_floats(x)
    return backend_of(x).xp.maximum(x, 0 * x)


def softmax(x: Any) -> Array:
    """Softmax over the last axis.

    For one row (V,) on a device the weights come back as float64 of NumPy: what the book's scripts do with them
    is ``numpy.random.choice(p=...)``, which takes nothing else.
    """
    x = as_floats(x)
    if x.ndim == 1:
        x = to_host(x) if isinstance(x, type(to_host(x))) else to_host(x).astype("float64")
    return F.softmax(x)[0]


def cross_entropy_error(y: Any, t: Any) -> Array:
    """Mean of ``-log(y[t])`` for probabilities y (N, V) or (V,), t of labels (N,) or one-hot of y's shape."""
    y = as_floats(y)
    backend = backend_of(y)
    xp = backend.xp
    labels = ids(y, t, y.shape[-1])
    if y.ndim == 1:
        y, labels = y.reshape(1, -1), labels.reshape(1, -1)
    if labels.size == y.size:
        labels = xp.argmax(labels, axis=1)
    labels = labels.reshape(-1)
    if not backend.on_host:  # CuPy takes any index as one within
        columns = xp.arange(y.shape[-1])
        labels = backend.take_rows(columns, labels.astype("int64"), "t", "give y a column for each label")
    picked = xp.take_along_axis(y, labels[:, None], axis=1)
    return -xp.mean(xp.log(picked + TINY))
