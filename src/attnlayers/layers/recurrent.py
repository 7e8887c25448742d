"""Long short-term memory, one step or all steps at once."""

from attnbackends import Array

from .. import functional as F
from ..functional._check import check
from ._base import Layer


class _LSTMWeights(Layer):
    names = ("Wx", "Wh", "b")

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        check(Wx=(Wx, "D 4H"), Wh=(Wh, "H 4H"), b=(b, "4H"))
        super().__init__(Wx, Wh, b)


class LSTM(_LSTMWeights):
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

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """x (N, D), h_prev (N, H), c_prev (N, H) -> h_next (N, H), c_next (N, H)."""
        check(x=(x, "N D"), h_prev=(h_prev, "N H"), c_prev=(c_prev, "N H"))
        _, h_next, c_next, self._saved = F.lstm(x[:, None, :], *self.params, h=h_prev, c=c_prev)
        return h_next, c_next

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """dh_next (N, H), dc_next (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        saved = self.saved()
        check(dh_next=(dh_next, "N H"), dc_next=(dc_next, "N H"))
        dx, dWx, dWh, db, dh_prev, dc_prev = F.lstm_backward(saved, dh_next[:, None, :], dc=dc_next)
        self.write_grads(dWx, dWh, db)
        return dx[:, 0, :], dh_prev, dc_prev


class TimeLSTM(_LSTMWeights):
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

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.h: Array | None = None
        self.c: Array | None = None
        self.dh: Array | None = None

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T, D), mask (N, T) with False = skip the step -> hs (N, T, H)."""
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
