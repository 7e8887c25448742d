"""The layers of the book's ``common.time_layers``."""

from typing import Any

from attnbackends import Array, backend_of

from .. import functional as F
from .. import layers
from ..layers import Layer
from ._arrays import as_floats, as_loss, floats, ids
from .functions import sigmoid
from .layers import *  # noqa: F403  as the book's does
from .layers import Embedding, SigmoidWithLoss, SoftmaxWithLoss, draw_like
from .layers import __all__ as _of_layers

__all__ = [
    *_of_layers,
    "GRU",
    "LSTM",
    "RNN",
    "Simple_TimeAffine",
    "Simple_TimeSoftmaxWithLoss",
    "TimeAffine",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "sigmoid",
]


class _Moved(Layer):
    """Takes arrays of any library and dtype to where the weights are."""

    def forward(self, *inputs: Any) -> Any:
        """As the library's layer of this name."""
        return super().forward(*(floats(self.params[0], x) for x in inputs))

    def backward(self, *douts: Any) -> Any:
        """As the library's layer of this name."""
        return super().backward(*(floats(self.params[0], dout) for dout in douts))


class _MovedState(_Moved):
    """The same for a layer that carries its state from forward to forward."""

    def set_state(self, h: Any, c: Any = None) -> None:
        """Begin the next forward from h and c, both (N, H), or from zeros where None."""
        states = [None if state is None else floats(self.params[0], state) for state in (h, c)]
        self.h = states[0]
        if hasattr(self, "c"):
            self.c = states[1]


class RNN(_Moved, layers.RNN):
    """One step of the plain recurrent network."""


class LSTM(_Moved, layers.LSTM):
    """One step of long short-term memory."""


class GRU(_Moved, layers.GRU):
    """One step of the gated recurrent unit."""


class TimeRNN(_MovedState, layers.TimeRNN):
    """The plain recurrent network over T steps."""


class TimeLSTM(_MovedState, layers.TimeLSTM):
    """Long short-term memory over T steps."""


class TimeGRU(_MovedState, layers.TimeGRU):
    """Gated recurrent unit over T steps."""


class TimeBiLSTM(_Moved, layers.TimeBiLSTM):
    """Two LSTMs over T steps, one of them from the end."""


class TimeEmbedding(Embedding):
    """`Embedding` at every step."""


class TimeAffine(_Moved, layers.TimeAffine):
    """`Affine` at every step."""


class Simple_TimeAffine(TimeAffine):
    """`TimeAffine` under the book's other name, with its gradients as attributes."""

    @property
    def dW(self) -> Array:
        """Gradient of W."""
        return self.grads[0]

    @property
    def db(self) -> Array:
        """Gradient of b."""
        return self.grads[1]


class TimeSoftmaxWithLoss(layers.TimeSoftmaxWithLoss):
    """Mean cross-entropy of softmax over every step whose label is not -1."""

    def forward(self, xs: Any, ts: Any) -> Any:
        """xs (N, T, V) scores, ts (N, T) ids or (N, T, V) one-hot -> loss, a number, or () on a device."""
        xs = as_floats(xs)
        ts = ids(xs, ts)
        if ts.ndim == 3:
            ts = backend_of(ts).xp.argmax(ts, axis=2)
        return as_loss(super().forward(xs, ts))


class Simple_TimeSoftmaxWithLoss(SoftmaxWithLoss):
    """Mean cross-entropy of softmax over every step."""


class TimeSigmoidWithLoss(SigmoidWithLoss):
    """Mean cross-entropy of sigmoid over every step: xs (N, T), ts (N, T) of 0 and 1."""


class TimeDropout(Layer):
    """Set a share of the values to 0 while `train_flg` is True, and scale the others up."""

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.train_flg = True

    def forward(self, xs: Any) -> Array:
        """xs (N, T, H) -> (N, T, H)."""
        xs = as_floats(xs)
        if not self.train_flg:
            self._saved = (None,)
            return xs
        out, saved = F.dropout(xs, self.dropout_ratio, draw_like(xs))
        self._saved = (saved,)
        return out

    def backward(self, dout: Any) -> Array:
        """dout (N, T, H) -> dxs (N, T, H)."""
        (saved,) = self.saved()
        return dout if saved is None else F.dropout_backward(saved, floats(saved.factor, dout))
