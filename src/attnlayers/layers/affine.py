"""Affine maps, for one step or for all."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ..functional.integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class Affine(Layer):
    """``x @ W + b``.

    Parameters
    ----------
    W : array (D, H)
    b : array (H,), optional
    """

    names: tuple[str, ...] = ("W", "b")

    def __init__(self, W: Array, b: Array | None = None) -> None:
        check(W=(W, "D H"), b=(b, "H"))
        if b is None:
            self.names = ("W",)
            super().__init__(W)
        else:
            super().__init__(W, b)

    @classmethod
    def create(cls, input_size: int, output_size: int, *, use_bias: bool = True, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, D to H, and a bias of 0; `drawing` is that of `Initializer`."""
        draw, (D, H) = Initializer.of(**drawing), sizes(input_size=input_size, output_size=output_size)
        return cls(draw.matrix(D, H), draw.full(0, H) if use_bias else None)

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., H)."""
        out, self._saved = F.affine(x, *self.params)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., H) -> dx (..., D)."""
        dx, *_ = F.affine_backward(self.saved(), dout, out=self.grads)
        return dx


class TimeAffine(Affine):
    """`Affine` at every step.

    References
    ----------
    Deep Learning from Scratch 2, section 5.4.2.
    """

    def forward(self, x: Array) -> Array:
        """x (N, T, D) -> (N, T, H)."""
        check(x=(x, "N T D"))
        return super().forward(x)
