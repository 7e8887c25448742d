"""Softmax, alone and with the loss."""

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
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

    Parameters
    ----------
    label_smoothing : float
        Share of the wanted probability that is spread over all classes while training, 0 <= label_smoothing < 1.

    Attributes
    ----------
    ignore_label : int
        Label of the places that do not count.
    training : bool
        False smooths nothing.
    """

    ignore_label = -1

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must lie in [0, 1), got {label_smoothing}")
        super().__init__()
        self.label_smoothing = label_smoothing
        self.training = True

    def forward(self, xs: Array, ts: Array) -> Array:
        """xs (..., V) scores, ts (...) integer labels -> loss (), on the device."""
        check(xs=(xs, "... V"), ts=(ts, "...: int"))
        smoothing = self.label_smoothing if self.training else 0.0
        loss, self._saved = F.cross_entropy(xs, ts, ignore_label=self.ignore_label, label_smoothing=smoothing)
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
