"""The layers of the book's ``common.time_layers``."""

from typing import Any

from attnbackends import Array, backend_of

from .. import functional as F
from .. import layers
from ..layers import Layer
from ._arrays import as_floats, as_loss, floats, ids
from .functions import sigmoid
from .layers import *  # noqa: F403  as the book's does
from .layers import Embedding, SigmoidWithLoss, SoftmaxWithLoss, WithoutWeights, draw_like
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


class _OneStep(Layer):
    """A step whose arrays go to where the weights are; h is its only state."""

    def forward(self, x: Any, h_prev: Any) -> Any:
        """x (N, D), h_prev (N, H) -> h_next (N, H)."""
        return super().forward(floats(self.params[0], x), floats(self.params[0], h_prev))

    def backward(self, dh_next: Any) -> Any:
        """dh_next (N, H) -> dx (N, D), dh_prev (N, H)."""
        return super().backward(floats(self.params[0], dh_next))


class _AllSteps(Layer):
    """All steps, whose arrays go to where the weights are."""

    def forward(self, xs: Any, mask: Any = None) -> Any:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
        return super().forward(floats(self.params[0], xs), mask)

    def backward(self, dhs: Any) -> Any:
        """dhs (N, T, H) -> dxs (N, T, D)."""
        return super().backward(floats(self.params[0], dhs))

    def _moved(self, state: Any) -> Any:
        return None if state is None else floats(self.params[0], state)


class RNN(_OneStep, layers.RNN):
    """One step of the plain recurrent network."""


class LSTM(layers.LSTM):
    """One step of long short-term memory."""

    def forward(self, x: Any, h_prev: Any, c_prev: Any) -> Any:
        """x (N, D), h_prev (N, H), c_prev (N, H) -> h_next (N, H), c_next (N, H)."""
        return super().forward(*(floats(self.params[0], given) for given in (x, h_prev, c_prev)))

    def backward(self, dh_next: Any, dc_next: Any) -> Any:
        """dh_next (N, H), dc_next (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        return super().backward(*(floats(self.params[0], given) for given in (dh_next, dc_next)))


class GRU(_OneStep, layers.GRU):
    """One step of the gated recurrent unit."""


class TimeRNN(_AllSteps, layers.TimeRNN):
    """The plain recurrent network over T steps."""

    def set_state(self, h: Any) -> None:
        """Begin the next forward from h (N, H), or from zeros where None; needs `stateful`."""
        self.h = self._moved(h)


class TimeLSTM(_AllSteps, layers.TimeLSTM):
    """Long short-term memory over T steps."""

    def set_state(self, h: Any, c: Any = None) -> None:
        """Begin the next forward from h and c, both (N, H), or from zeros where None; needs `stateful`."""
        self.h, self.c = self._moved(h), self._moved(c)


class TimeGRU(_AllSteps, layers.TimeGRU):
    """Gated recurrent unit over T steps."""

    def set_state(self, h: Any) -> None:
        """Begin the next forward from h (N, H), or from zeros where None; needs `stateful`."""
        self.h = self._moved(h)


class TimeBiLSTM(layers.TimeBiLSTM):
    """Two LSTMs over T steps, one of them from the end."""

    def forward(self, xs: Any, mask: Any = None) -> Any:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, 2H)."""
        return super().forward(floats(self.params[0], xs), mask)

    def backward(self, dhs: Any) -> Any:
        """dhs (N, T, 2H) -> dxs (N, T, D)."""
        return super().backward(floats(self.params[0], dhs))


class TimeEmbedding(Embedding):
    """`Embedding` at every step."""

    def forward(self, xs: Any) -> Array:
        """xs (N, T) of ids -> (N, T, D)."""
        return super().forward(xs)


class TimeAffine(layers.TimeAffine):
    """`Affine` at every step."""

    def forward(self, x: Any) -> Array:
        """x (N, T, D) -> (N, T, H)."""
        return super().forward(floats(self.params[0], x))

    def backward(self, dout: Any) -> Array:
        """dout (N, T, H) -> dx (N, T, D)."""
        return super().backward(floats(self.params[0], dout))


class Simple_TimeAffine(TimeAffine):
    """`TimeAffine` under the book's other name, with its weights and gradients as attributes."""

    def forward(self, xs: Any) -> Array:
        """xs (N, T, D) -> (N, T, H)."""
        return super().forward(xs)

    @property
    def W(self) -> Array:
        """The weights (D, H)."""
        return self.params[0]

    @property
    def b(self) -> Array:
        """The bias (H,)."""
        return self.params[1]

    @property
    def dW(self) -> Array:
        """Gradient of W."""
        return self.grads[0]

    @property
    def db(self) -> Array:
        """Gradient of b."""
        return self.grads[1]


class TimeSoftmaxWithLoss(WithoutWeights, layers.TimeSoftmaxWithLoss):
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

    def forward(self, xs: Any, ts: Any) -> Any:
        """xs (N, T, V) scores, ts (N, T) ids or (N, T, V) one-hot -> loss, a number, or () on a device."""
        return super().forward(xs, ts)


class TimeSigmoidWithLoss(SigmoidWithLoss):
    """Mean cross-entropy of sigmoid over every step."""

    def forward(self, xs: Any, ts: Any) -> Any:
        """xs (N, T) scores, ts (N, T) of 0 and 1 -> loss, a number, or () on a device."""
        return super().forward(xs, ts)


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
