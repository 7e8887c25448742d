"""Word vectors, for one step or for all."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ..functional.integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class Embedding(Layer):
    """Rows of a table.

    Parameters
    ----------
    W : array (V, D)
    """

    names = ("W",)

    def __init__(self, W: Array) -> None:
        check(W=(W, "V D"))
        super().__init__(W)

    @classmethod
    def create(cls, vocab_size: int, embedding_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A table (V, D) of normal numbers, of variance 1 by default; `drawing` is that of `Initializer`."""
        draw = Initializer.of(**drawing)
        return cls(draw.normal(*sizes(vocab_size=vocab_size, embedding_size=embedding_size)))

    def forward(self, ids: Array) -> Array:
        """ids (...) of integers 0 to V - 1 -> (..., D)."""
        out, self._saved = F.embedding(self.params[0], ids)
        return out

    def backward(self, dout: Array) -> None:
        """dout (..., D) -> None, since ids have no gradient."""
        F.embedding_backward(self.saved(), dout, out=self.grads[0])


class TimeEmbedding(Embedding):
    """`Embedding` at every step.

    References
    ----------
    Deep Learning from Scratch 2, section 5.4.2.
    """

    def forward(self, ids: Array) -> Array:
        """ids (N, T) -> (N, T, D)."""
        check(ids=(ids, "N T: int"))
        return super().forward(ids)
