"""Recurrent networks, one step or all steps at once."""

from collections.abc import Callable
from typing import Any, Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional._check import check
from ..functional._integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class _Weights(Layer):
    names = ("Wx", "Wh", "b")
    gates = 1

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        width = f"{self.gates}H" if self.gates > 1 else "H"
        check(Wx=(Wx, f"D {width}"), Wh=(Wh, f"H {width}"), b=(b, width))
        super().__init__(Wx, Wh, b)

    @classmethod
    def _initial(cls, input_size: int, hidden_size: int, draw: Initializer) -> tuple[Array, Array, Array]:
        """Initial weights: normal numbers of variance 1 / D and 1 / H by default, and a bias of 0."""
        D, H = sizes(input_size=input_size, hidden_size=hidden_size)
        width = cls.gates * H
        return draw.matrix(D, width, "fan_in"), draw.matrix(H, width, "fan_in"), draw.full(0, width)

    def _check(self, **given: tuple[Array | None, str]) -> None:
        """Hold what `forward` was given against the weights, under the names that its caller knows."""
        check(Wx=(self.params[0], "D KH"), **given)


class _OneStep(_Weights):
    """A step of a network whose only state is h."""

    _pair: tuple[Callable[..., Any], Callable[..., Any]]

    @classmethod
    def create(cls, input_size: int, hidden_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)))

    def forward(self, x: Array, h_prev: Array) -> Array:
        """x (N, D), h_prev (N, H) -> h_next (N, H)."""
        self._check(x=(x, "N D"), h_prev=(h_prev, "N H"))
        _, h_next, self._saved = self._pair[0](x[:, None, :], *self.params, h=h_prev)
        return h_next

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        """dh_next (N, H) -> dx (N, D), dh_prev (N, H)."""
        saved = self.saved()
        check(dh_next=(dh_next, "N H"))
        if tuple(dh_next.shape) != (shape := tuple(saved.steps.h.shape[1:])):
            raise ValueError(f"`dh_next` must have the shape of the output, {shape}, got {tuple(dh_next.shape)}")
        dx, *gradients, dh_prev = self._pair[1](saved, dh_next[:, None, :])
        self.write_grads(*gradients)
        return dx[:, 0, :], dh_prev


class _AllSteps(_Weights):
    """All steps of a network whose only state is h."""

    _pair: tuple[Callable[..., Any], Callable[..., Any]]

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.h: Array | None = None
        self.dh: Array | None = None

    @classmethod
    def create(cls, input_size: int, hidden_size: int, *, stateful: bool = False, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)), stateful)

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
        self._check(xs=(xs, "N T D"), mask=(mask, "N T: bool"))
        h = self.h if self.stateful else None
        hs, self.h, self._saved = self._pair[0](xs, *self.params, h=h, mask=mask)
        return hs

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, H) -> dxs (N, T, D)."""
        dxs, *gradients, self.dh = self._pair[1](self.saved(), dhs)
        self.write_grads(*gradients)
        return dxs

    def set_state(self, h: Array | None) -> None:
        """Begin the next forward from h (N, H); needs `stateful`."""
        if h is not None:
            check(h=(h, "N H"))
        self.h = h

    def reset_state(self) -> None:
        """Begin the next forward from zeros."""
        self.h = None


class RNN(_OneStep):
    """One step of ``tanh(x @ Wx + h @ Wh + b)``.

    Parameters
    ----------
    Wx : array (D, H)
    Wh : array (H, H)
    b : array (H,)

    References
    ----------
    Deep Learning from Scratch 2, section 5.3.1.
    """

    _pair = (F.rnn, F.rnn_backward)


class TimeRNN(_AllSteps):
    """The plain recurrent network over T steps.

    Parameters
    ----------
    Wx : array (D, H)
    Wh : array (H, H)
    b : array (H,)
    stateful : bool
        Start each forward from the state in which the last one ended.

    Attributes
    ----------
    h : array (N, H) or None
        State after the last forward.
    dh : array (N, H) or None
        Gradient of the state before the first step, from the last backward.

    References
    ----------
    Deep Learning from Scratch 2, section 5.3.2.
    """

    _pair = (F.rnn, F.rnn_backward)


class GRU(_OneStep):
    """One step of the gated recurrent unit.

    Parameters
    ----------
    Wx : array (D, 3H)
        Columns in the order update gate, reset gate, new memory.
    Wh : array (H, 3H)
    b : array (3H,)

    References
    ----------
    Deep Learning from Scratch 2, appendix C.
    """

    gates = 3
    _pair = (F.gru, F.gru_backward)


class TimeGRU(_AllSteps):
    """Gated recurrent unit over T steps.

    Parameters
    ----------
    Wx : array (D, 3H)
        Columns in the order update gate, reset gate, new memory.
    Wh : array (H, 3H)
    b : array (3H,)
    stateful : bool
        Start each forward from the state in which the last one ended.

    Attributes
    ----------
    h : array (N, H) or None
        State after the last forward.
    dh : array (N, H) or None
        Gradient of the state before the first step, from the last backward.

    References
    ----------
    Deep Learning from Scratch 2, appendix C.
    """

    gates = 3
    _pair = (F.gru, F.gru_backward)


class LSTM(_Weights):
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

    @classmethod
    def create(cls, input_size: int, hidden_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)))

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """x (N, D), h_prev (N, H), c_prev (N, H) -> h_next (N, H), c_next (N, H)."""
        self._check(x=(x, "N D"), h_prev=(h_prev, "N H"), c_prev=(c_prev, "N H"))
        _, h_next, c_next, self._saved = F.lstm(x[:, None, :], *self.params, h=h_prev, c=c_prev)
        return h_next, c_next

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """dh_next (N, H), dc_next (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        saved = self.saved()
        check(dh_next=(dh_next, "N H"), dc_next=(dc_next, "N H"))
        dx, dWx, dWh, db, dh_prev, dc_prev = F.lstm_backward(saved, dh_next[:, None, :], dc=dc_next)
        self.write_grads(dWx, dWh, db)
        return dx[:, 0, :], dh_prev, dc_prev


class TimeLSTM(_Weights):
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
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.h: Array | None = None
        self.c: Array | None = None
        self.dh: Array | None = None

    @classmethod
    def create(cls, input_size: int, hidden_size: int, *, stateful: bool = False, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)), stateful)

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
        self._check(xs=(xs, "N T D"), mask=(mask, "N T: bool"))
        h, c = (self.h, self.c) if self.stateful else (None, None)
        hs, self.h, self.c, self._saved = F.lstm(xs, *self.params, h=h, c=c, mask=mask)
        return hs

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, H) -> dxs (N, T, D)."""
        dxs, dWx, dWh, db, self.dh, _ = F.lstm_backward(self.saved(), dhs)
        self.write_grads(dWx, dWh, db)
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
        Of the one that reads forwards and of the other; columns as in `TimeLSTM`.
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
