"""The plain recurrent network and the gated recurrent unit, one step or all steps at once."""

from collections.abc import Callable
from typing import Any, Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ..functional.integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class RecurrentWeights(Layer):
    """Weights of a recurrent network, several gates side by side: Wx (D, KH), Wh (H, KH), b (KH,)."""

    names = ("Wx", "Wh", "b")
    gates = 1

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        width = f"{self.gates}H" if self.gates > 1 else "H"
        check(Wx=(Wx, f"D {width}"), Wh=(Wh, f"H {width}"), b=(b, width))
        super().__init__(Wx, Wh, b)

    def _new_grads(self) -> list[Array]:
        """Those of Wh, Wx and b are the rows of one array, so that one product writes them where they stay."""
        Wx, Wh, _ = self.params
        stack, H = self.backend.empty((Wh.shape[0] + Wx.shape[0] + 1, Wx.shape[1]), like=Wx), Wh.shape[0]
        stack[...] = 0
        return [stack[H:-1, :], stack[:H, :], stack[-1, :]]

    @classmethod
    def _initial(cls, input_size: int, hidden_size: int, draw: Initializer) -> tuple[Array, Array, Array]:
        """Initial weights: normal numbers of variance 1 / D and 1 / H by default, and a bias of 0."""
        D, H = sizes(input_size=input_size, hidden_size=hidden_size)
        Wx, Wh = (draw.matrix(rows, cls.gates * H, "fan_in", side_by_side=cls.gates) for rows in (D, H))
        return Wx, Wh, draw.full(0, cls.gates * H)

    @classmethod
    def create(cls, input_size: int, hidden_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)))

    def _check(self, **given: tuple[Array | None, str]) -> None:
        """Hold what `forward` was given against the weights, under the names that its caller knows."""
        check(Wx=(self.params[0], "D KH"), **given)


class _OneStep(RecurrentWeights):
    """A step of a network whose only state is h."""

    _pair: tuple[Callable[..., Any], Callable[..., Any]]

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
        dx, *_, dh_prev = self._pair[1](saved, dh_next[:, None, :], out=self.grads)
        return dx[:, 0, :], dh_prev


class AllSteps(RecurrentWeights):
    """All steps of a network, which may go on from the state h in which its last forward ended."""

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.h: Array | None = None
        self.dh: Array | None = None

    @classmethod
    def create(cls, input_size: int, hidden_size: int, *, stateful: bool = False, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for D and H; `drawing` is that of `Initializer`."""
        return cls(*cls._initial(input_size, hidden_size, Initializer.of(**drawing)), stateful)


class _StepsOfH(AllSteps):
    """All steps of a network whose only state is h."""

    _pair: tuple[Callable[..., Any], Callable[..., Any]]

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
        self._check(xs=(xs, "N T D"), mask=(mask, "N T: bool"))
        h = self.h if self.stateful else None
        hs, self.h, self._saved = self._pair[0](xs, *self.params, h=h, mask=mask)
        return hs

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, H) -> dxs (N, T, D)."""
        dxs, *_, self.dh = self._pair[1](self.saved(), dhs, out=self.grads)
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


class TimeRNN(_StepsOfH):
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


class TimeGRU(_StepsOfH):
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
