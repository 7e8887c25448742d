"""Normalisation of features."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ..functional.integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class LayerNorm(Layer):
    """Mean 0 and variance 1 over the features, then a gain and a bias.

    Parameters
    ----------
    gain, bias : array (D,)
    epsilon : float

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> LayerNorm(np.ones(2), np.zeros(2), epsilon=0.0).forward(np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """

    names = ("gain", "bias")

    def __init__(self, gain: Array, bias: Array, epsilon: float = 1e-5) -> None:
        check(gain=(gain, "D"), bias=(bias, "D"))
        super().__init__(gain, bias)
        self.epsilon = epsilon

    @classmethod
    def create(cls, input_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with gain 1 and bias 0; `drawing` says in which dtype and where, and nothing is drawn."""
        draw, (D,) = Initializer.of(**drawing), sizes(input_size=input_size)
        return cls(draw.full(1, D), draw.full(0, D))

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., D)."""
        out, self._saved = F.layer_norm(x, *self.params, epsilon=self.epsilon)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., D) -> dx (..., D)."""
        dx, *_ = F.layer_norm_backward(self.saved(), dout, out=self.grads)
        return dx


class RMSNorm(Layer):
    """Mean square 1 over the features, then a gain.

    Parameters
    ----------
    gain : array (D,)
    epsilon : float

    References
    ----------
    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> RMSNorm(np.ones(2), epsilon=0.0).forward(np.array([[3.0, -3.0]]))
    array([[ 1., -1.]])
    """

    names = ("gain",)

    def __init__(self, gain: Array, epsilon: float = 1e-6) -> None:
        check(gain=(gain, "D"))
        super().__init__(gain)
        self.epsilon = epsilon

    @classmethod
    def create(cls, input_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with gain 1; `drawing` says in which dtype and where, and nothing is drawn."""
        return cls(Initializer.of(**drawing).full(1, *sizes(input_size=input_size)))

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., D)."""
        out, self._saved = F.rms_norm(x, *self.params, epsilon=self.epsilon)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., D) -> dx (..., D)."""
        dx, _ = F.rms_norm_backward(self.saved(), dout, out=self.grads)
        return dx
