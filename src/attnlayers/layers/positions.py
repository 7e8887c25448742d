"""Positions that are added to vectors; those that turn them are in `functional.rotary`."""

from typing import Self, Unpack

import numpy as np

from attnbackends import Array, backend_of

from ..functional.checks import check
from ..functional.dtypes import widen
from ..functional.integers import integer, sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class LearnedPositions(Layer):
    """Add a vector of its own to each position.

    Parameters
    ----------
    W : array (T_max, D)

    References
    ----------
    Gehring et al., "Convolutional Sequence to Sequence Learning", 2017, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> LearnedPositions(np.array([[1.0], [2.0], [3.0]])).forward(np.zeros((1, 2, 1)), start=1).tolist()
    [[[2.0], [3.0]]]
    """

    names = ("W",)

    def __init__(self, W: Array) -> None:
        check(W=(W, "T_max D"))
        super().__init__(W)

    @classmethod
    def create(cls, max_length: int, embedding_size: int, **drawing: Unpack[Drawing]) -> Self:
        """Normal numbers, of standard deviation 0.02 by default; `drawing` is that of `Initializer`."""
        T_max, D = sizes(max_length=max_length, embedding_size=embedding_size)
        return cls(Initializer.of(**drawing).normal(T_max, D, usual=0.02))

    def forward(self, x: Array, start: int = 0) -> Array:
        """x (N, T, D), `start` the position of its first step -> (N, T, D)."""
        (W,) = self.params
        check(W=(W, "T_max D"), x=(x, "N T D"))
        start = integer("start", start)
        end = start + x.shape[1]
        if start < 0 or end > W.shape[0]:
            raise ValueError(f"positions must lie in 0 .. {W.shape[0] - 1}, got {start} .. {end - 1}: enlarge W")
        self._saved = start, tuple(x.shape)
        return x + W[start:end, :]

    def backward(self, dout: Array) -> Array:
        """dout (N, T, D) -> dx (N, T, D)."""
        start, shape = self.saved()
        check(W=(self.params[0], "T_max D"), dout=(dout, "N T D"))
        if tuple(dout.shape) != shape:
            raise ValueError(f"`dout` must have the shape of the output, {shape}, got {tuple(dout.shape)}")
        backend = backend_of(dout)
        xp = backend.xp
        (dW,) = self.grads
        dW[...] = 0
        dW[start : start + shape[1], :] = xp.astype(xp.sum(widen(backend, dout), axis=0), dout.dtype)
        return xp.astype(dout, dout.dtype, copy=True)


class SinusoidalPositions(Layer):
    """Add sines and cosines of the position, of wavelengths from 2 pi to 2 pi times `base`.

    Parameters
    ----------
    base : float

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.5: sines at even features, cosines at odd ones.

    Examples
    --------
    >>> import numpy as np
    >>> SinusoidalPositions().forward(np.zeros((1, 2, 2))).round(3)
    array([[[0.   , 1.   ],
            [0.841, 0.54 ]]])
    """

    def __init__(self, base: float = 10000.0) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Array, start: int = 0) -> Array:
        """x (N, T, D), `start` the position of its first step -> (N, T, D)."""
        backend = check(x=(x, "N T D"))
        self._saved = tuple(x.shape)
        T, D = x.shape[1:]
        positions = float(integer("start", start)) + np.arange(T)
        angles = positions[:, None] * self.base ** (-(np.arange(D) // 2 * 2) / D)
        table = np.where(np.arange(D) % 2 == 0, np.sin(angles), np.cos(angles))
        return x + backend.asarray(table, dtype=x.dtype, like=x)

    def backward(self, dout: Array) -> Array:
        """dout (N, T, D) -> dx (N, T, D)."""
        shape, backend = self.saved(), check(dout=(dout, "N T D"))
        if tuple(dout.shape) != shape:
            raise ValueError(f"`dout` must have the shape of the output, {shape}, got {tuple(dout.shape)}")
        return backend.xp.astype(dout, dout.dtype, copy=True)
