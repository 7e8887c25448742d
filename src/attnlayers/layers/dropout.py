"""Dropout, for one step or for all."""

from collections.abc import Callable

from attnbackends import Array, Uniform, backend_of

from .. import functional as F
from ..functional.checks import check
from ..functional.integers import integer
from ._base import Layer


class Dropout(Layer):
    """Set a share of the values to 0 while training.

    Parameters
    ----------
    dropout : float
        Share that is dropped, 0 <= dropout < 1.
    seed : int
        Seed of what is drawn, which is the same on every device and in every library.

    Attributes
    ----------
    training : bool
        False passes everything through.
    """

    def __init__(self, dropout: float = 0.5, seed: int = 0) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}")
        super().__init__()
        self.dropout = dropout
        self.training = True
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew: what follows is what followed the last time."""
        self._seed = integer("seed", seed, least=0)
        self._draw: Callable[..., Array] | None = None

    def forward(self, x: Array, training: bool | None = None) -> Array:
        """x (...) -> (...); `training`, if given, overrides the attribute for this call."""
        if not self.dropout or not (self.training if training is None else training):
            self._saved = (None,)  # all passed
            return x
        if self._draw is None:
            self._draw = Uniform(backend_of(x=x), self._seed)
        out, saved = F.dropout(x, self.dropout, self._draw)
        self._saved = (saved,)
        return out

    def backward(self, dout: Array) -> Array:
        """dout (...) -> dx (...)."""
        (saved,) = self.saved()
        return dout if saved is None else F.dropout_backward(saved, dout)


class TimeDropout(Dropout):
    """`Dropout` over every step.

    References
    ----------
    Deep Learning from Scratch 2, section 6.5.
    """

    def forward(self, x: Array, training: bool | None = None) -> Array:
        """x (N, T, H) -> (N, T, H)."""
        check(x=(x, "N T H"))
        return super().forward(x, training)
