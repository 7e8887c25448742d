"""Normalisation of features."""

from attnbackends import Array

from .. import functional as F
from ..functional._check import check
from ..functional._integers import sizes
from ._base import Layer
from ._composite import Initial


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
    def create(cls, size: int, *, initial: Initial | int | None = None, seed: int | None = None) -> "LayerNorm":
        """A layer with gain 1 and bias 0; `initial` says in which dtype and where, and nothing is drawn."""
        draw, (size,) = Initial.of(initial, seed), sizes(size=size)
        return cls(draw.full(1, size), draw.full(0, size))

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., D)."""
        out, self._saved = F.layer_norm(x, *self.params, epsilon=self.epsilon)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., D) -> dx (..., D)."""
        dx, *gradients = F.layer_norm_backward(self.saved(), dout)
        self.write_grads(*gradients)
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
    def create(cls, size: int, *, initial: Initial | int | None = None, seed: int | None = None) -> "RMSNorm":
        """A layer with gain 1; `initial` says in which dtype and where, and nothing is drawn."""
        return cls(Initial.of(initial, seed).full(1, *sizes(size=size)))

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., D)."""
        out, self._saved = F.rms_norm(x, *self.params, epsilon=self.epsilon)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., D) -> dx (..., D)."""
        dx, dgain = F.rms_norm_backward(self.saved(), dout)
        self.write_grads(dgain)
        return dx
