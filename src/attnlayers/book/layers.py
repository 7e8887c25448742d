"""The layers of the book's ``common.layers``."""

from typing import Any

import numpy

from attnbackends import Array, Uniform, backend_of

from .. import functional as F
from .. import layers
from ..layers import Layer
from ._arrays import as_floats, as_loss, floats, ids
from .functions import TINY, cross_entropy_error, sigmoid, softmax
from .np import GPU, np

__all__ = [
    "GPU",
    "Affine",
    "Dropout",
    "Embedding",
    "MatMul",
    "Sigmoid",
    "SigmoidWithLoss",
    "Softmax",
    "SoftmaxWithLoss",
    "cross_entropy_error",
    "np",
    "softmax",
]


class WithoutWeights(Layer):
    """What the book makes from nothing takes nothing."""

    def __init__(self) -> None:
        super().__init__()


class MatMul(Layer):
    """``x @ W``, in the dtype of W (the book's becomes float64 where x is one-hot integers)."""

    names = ("W",)

    def __init__(self, W: Array) -> None:
        super().__init__(W)

    def forward(self, x: Any) -> Array:
        """x (..., D) -> (..., H)."""
        (W,) = self.params
        self._saved = x = floats(W, x)
        out = self.backend.matmul(x.reshape(-1, W.shape[0]), W)
        return out.reshape(*x.shape[:-1], W.shape[1])

    def backward(self, dout: Any) -> Array:
        """dout (..., H) -> dx (..., D)."""
        (W,), x = self.params, self.saved()
        rows = floats(W, dout).reshape(-1, W.shape[1])
        self.backend.matmul(x.reshape(-1, W.shape[0]).T, rows, out=self.grads[0])
        return self.backend.matmul(rows, W.mT).reshape(x.shape)


class Affine(layers.Affine):
    """``x @ W + b``, in the dtype of W."""

    def forward(self, x: Any) -> Array:
        """x (..., D) -> (..., H)."""
        return super().forward(floats(self.params[0], x))

    def backward(self, dout: Any) -> Array:
        """dout (..., H) -> dx (..., D)."""
        return super().backward(floats(self.params[0], dout))


class Softmax(WithoutWeights, layers.Softmax):
    """Softmax over the last axis."""

    def forward(self, x: Any) -> Array:
        """x (..., T) -> (..., T)."""
        self.out = super().forward(as_floats(x))
        return self.out


class SoftmaxWithLoss(WithoutWeights, layers.SoftmaxWithLoss):
    """Mean cross-entropy of softmax; labels are ids, or one-hot in the shape of the scores."""

    def forward(self, x: Any, t: Any) -> Any:
        """x (..., V) scores, t (...) ids or (..., V) one-hot -> loss, a number, or () on a device."""
        x = as_floats(x)
        t = ids(x, t, x.shape[-1])
        if t.size == x.size:
            t = backend_of(t).xp.argmax(t, axis=-1)
        return as_loss(super().forward(x, t.reshape(x.shape[:-1])))


class Sigmoid(WithoutWeights):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Any) -> Array:
        """x (...) -> (...)."""
        self._saved = sigmoid(x)
        self.out = 1 * self._saved
        return self.out

    def backward(self, dout: Any) -> Array:
        """dout (...) -> dx (...)."""
        out = self.saved()
        return floats(out, dout) * (out - out * out)


class SigmoidWithLoss(WithoutWeights):
    """Mean cross-entropy of sigmoid; stays in the dtype of the scores (the book's becomes float64)."""

    def forward(self, x: Any, t: Any) -> Any:
        """x (N,) scores, t (N,) of 0 and 1 -> loss, a number, or () on a device."""
        y = sigmoid(x)
        t = floats(y, t)
        self._saved = y, t
        xp = backend_of(y).xp
        right = 1 - xp.abs(t - y)  # y where t is 1, 1 - y where it is 0
        return as_loss(-xp.mean(xp.log(right + TINY)))

    def backward(self, dout: Any = 1) -> Array:
        """dout, a number -> dx (N,)."""
        y, t = self.saved()
        return (y - t) * (dout / t.size)


class Dropout(Layer):
    """Set a share of the values to 0 while training, and scale all down when not."""

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio

    def forward(self, x: Any, train_flg: bool = True) -> Array:
        """x (...) -> (...)."""
        x = as_floats(x)
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        _, saved = F.dropout(x, self.dropout_ratio, draw_like(x))
        self._saved = self.mask = kept = saved.factor > 0
        return x * kept

    def backward(self, dout: Any) -> Array:
        """dout (...) -> dx (...)."""
        return dout * self.saved()


class Embedding(layers.Embedding):
    """Rows of a table; an id outside of it is an error."""

    @property
    def W(self) -> Array:
        """The table (V, D)."""
        return self.params[0]

    def forward(self, idx: Any) -> Array:
        """idx (...) of ids -> (..., D)."""
        return super().forward(ids(self.W, idx, self.W.shape[0]))

    def backward(self, dout: Any) -> None:
        """dout (..., D) -> None."""
        super().backward(floats(self.W, dout))


def draw_like(x: Array) -> Any:
    """Uniform numbers for a shape: NumPy's global ones where x is NumPy's, else the device's, seeded by those."""
    backend = backend_of(x)
    if backend.on_host:
        return lambda shape, like=None: numpy.random.rand(*shape)  # noqa: NPY002  the book's scripts seed this one
    if backend.name not in _draws:
        _draws[backend.name] = Uniform(backend, int(numpy.random.randint(2**31)))  # noqa: NPY002
    return _draws[backend.name]


_draws: dict[str, Any] = {}
