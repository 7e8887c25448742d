"""Softmax, alone and with the loss."""

from attnbackends import Array

from .. import functional as F
from ..functional._check import check
from ._base import Layer


class Softmax(Layer):
    """Softmax over the last axis."""

    def forward(self, x: Array) -> Array:
        """x (..., T) -> (..., T)."""
        out, self._saved = F.softmax(x)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (..., T) -> dx (..., T)."""
        return F.softmax_backward(self.saved(), dout)


class SoftmaxWithLoss(Layer):
    """Mean cross-entropy of softmax.

    Attributes
    ----------
    ignore_label : int
        Label of the places that do not count.
    """

    ignore_label = -1

    def forward(self, xs: Array, ts: Array) -> Array:
        """xs (..., V) scores, ts (...) integer labels -> loss (), on the device."""
        check(xs=(xs, "... V"), ts=(ts, "...: int"))
        loss, self._saved = F.cross_entropy(xs, ts, ignore=self.ignore_label)
        return loss

    def backward(self, dout: float | Array = 1.0) -> Array:
        """dout, a number -> dxs (..., V)."""
        return F.cross_entropy_backward(self.saved(), dout)


class TimeSoftmaxWithLoss(SoftmaxWithLoss):
    """`SoftmaxWithLoss` over every step whose label counts.

    References
    ----------
    Deep Learning from Scratch 2, section 5.4.2.
    """

    def forward(self, xs: Array, ts: Array) -> Array:
        """xs (N, T, V) scores, ts (N, T) integer labels -> loss (), on the device."""
        check(xs=(xs, "N T V"), ts=(ts, "N T: int"))
        return super().forward(xs, ts)
