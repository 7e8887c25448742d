"""Long short-term memory, one step or all steps at once, in one direction or in both."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ._base import Layer
from .initializer import Drawing, Initializer
from .recurrent import AllSteps, RecurrentWeights


class LSTM(RecurrentWeights):
    """One step of long short-term memory.

    Parameters
    ----------
    Wx : array (D, 4H)
        Columns in the order forget gate, new memory, input gate, output gate.
    Wh : array (H, 4H)
    b : array (4H,)

    References
    ----------
    Deep Learning from Scratch 2, section 6.3.
    """

    gates = 4

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """x (N, D), h_prev (N, H), c_prev (N, H) -> h_next (N, H), c_next (N, H)."""
        self._check(x=(x, "N D"), h_prev=(h_prev, "N H"), c_prev=(c_prev, "N H"))
        _, h_next, c_next, self._saved = F.lstm(x[:, None, :], *self.params, h=h_prev, c=c_prev)
        return h_next, c_next

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """dh_next (N, H), dc_next (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        saved = self.saved()
        check(dh_next=(dh_next, "N H"), dc_next=(dc_next, "N H"))
        dx, *_, dh_prev, dc_prev = F.lstm_backward(saved, dh_next[:, None, :], dc=dc_next, out=self.grads)
        return dx[:, 0, :], dh_prev, dc_prev


class TimeLSTM(AllSteps):
    """Long short-term memory over T steps.

    Parameters
    ----------
    Wx : array (D, 4H)
        Columns in the order forget gate, new memory, input gate, output gate.
    Wh : array (H, 4H)
    b : array (4H,)
    stateful : bool
        Start each forward from the state in which the last one ended.

    Attributes
    ----------
    h, c : array (N, H) or None
        State after the last forward.
    dh : array (N, H) or None
        Gradient of the state before the first step, from the last backward.

    References
    ----------
    Deep Learning from Scratch 2, section 6.3.1.
    """

    gates = 4

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b, stateful)
        self.c: Array | None = None

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
        self._check(xs=(xs, "N T D"), mask=(mask, "N T: bool"))
        h, c = (self.h, self.c) if self.stateful else (None, None)
        hs, self.h, self.c, self._saved = F.lstm(xs, *self.params, h=h, c=c, mask=mask)
        return hs

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, H) -> dxs (N, T, D)."""
        dxs, *_, self.dh, _ = F.lstm_backward(self.saved(), dhs, out=self.grads)
        return dxs

    def set_state(self, h: Array, c: Array | None = None) -> None:
        """Begin the next forward from h (N, H) and c (N, H), zeros if left out; needs `stateful`."""
        check(h=(h, "N H"), c=(c, "N H"))
        self.h, self.c = h, c

    def reset_state(self) -> None:
        """Begin the next forward from zeros."""
        self.h, self.c = None, None


class TimeBiLSTM(Layer):
    """Two LSTMs over T steps, one of which reads from the last step to the first.

    Parameters
    ----------
    Wx1, Wx2 : array (D, 4H)
        Weights of the LSTM that reads forwards, and of the other; columns as in `TimeLSTM`.
    Wh1, Wh2 : array (H, 4H)
    b1, b2 : array (4H,)
    stateful : bool
        Start each forward from the states in which the last one ended.

    Attributes
    ----------
    forward_lstm, backward_lstm : TimeLSTM

    References
    ----------
    Deep Learning from Scratch 2, section 8.3.1.
    """

    names = ("Wx1", "Wh1", "b1", "Wx2", "Wh2", "b2")

    def __init__(
        self, Wx1: Array, Wh1: Array, b1: Array, Wx2: Array, Wh2: Array, b2: Array, stateful: bool = False
    ) -> None:
        super().__init__()
        self.forward_lstm = TimeLSTM(Wx1, Wh1, b1, stateful)
        self.backward_lstm = TimeLSTM(Wx2, Wh2, b2, stateful)
        self.params = self.forward_lstm.params + self.backward_lstm.params
        self.grads = self.forward_lstm.grads + self.backward_lstm.grads

    @classmethod
    def create(cls, input_size: int, hidden_size: int, *, stateful: bool = False, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        draw = Initializer.of(**drawing)
        there, back = (TimeLSTM._initial(input_size, hidden_size, draw) for _ in range(2))
        return cls(*there, *back, stateful)

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, 2H).

        The states of the reader from the end stand behind the others. It skips padding as the other does, so that it
        begins at the last step that counts.
        """
        xp = check(xs=(xs, "N T D"), mask=(mask, "N T: bool")).xp
        there = self.forward_lstm.forward(xs, mask)
        back = self.backward_lstm.forward(xp.flip(xs, axis=1), None if mask is None else xp.flip(mask, axis=1))
        self._saved = (there.shape[2],)
        return xp.concat((there, xp.flip(back, axis=1)), axis=2)

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, 2H) -> dxs (N, T, D)."""
        (H,) = self.saved()
        xp = check(dhs=(dhs, "N T 2H")).xp
        dxs = self.forward_lstm.backward(dhs[:, :, :H])
        dxs += xp.flip(self.backward_lstm.backward(xp.flip(dhs[:, :, H:], axis=1)), axis=1)
        return dxs

    def set_state(self, h: Array, c: Array | None = None) -> None:
        """Begin the next forward of both from h (N, H) and c (N, H), zeros if left out; needs `stateful`."""
        for lstm in (self.forward_lstm, self.backward_lstm):
            lstm.set_state(h, c)

    def reset_state(self) -> None:
        """Begin the next forward of both from zeros."""
        for lstm in (self.forward_lstm, self.backward_lstm):
            lstm.reset_state()
