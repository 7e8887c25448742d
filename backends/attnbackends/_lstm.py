"""The LSTM as a whole.

Here because libraries disagree on what a step costs: a CPU wants few passes over few bytes, CUDA few kernels.
"""

from typing import Any, NamedTuple

Array = Any


class LSTMCall(NamedTuple):
    """One call of an LSTM, after all checks; every array is in the dtype to compute in, float32 or float64.

    Attributes
    ----------
    x : array (N, T, D)
        Inputs; 0 in the steps that `mask` skips. No array is promised to be contiguous, and any axis may have length 0.
    Wx : array (D, 4H)
        The columns of the gates in the order forget, new memory, input, output.
    Wh : array (H, 4H)
    b : array (4H,)
    h, c : array (N, H) or None
        State before the first step; None is zeros.
    mask : boolean array (N, T) or None
        False skips a step: both states go through unchanged.
    """

    x: Array
    Wx: Array
    Wh: Array
    b: Array
    h: Array | None
    c: Array | None
    mask: Array | None


class WholeLSTM:
    """Defaults: no library has a way of its own."""

    def lstm(self, call: LSTMCall) -> tuple[Array, Array, Array, Any] | None:
        """An LSTM by a way of the library's own, if it has one for this call.

        Returns
        -------
        hs, h, c, kept : array (N, T, H), two arrays (N, H), any object
            State after each step, both states after the last one, and what `lstm_backward` needs. `hs` shares no
            memory with the rest. Or None: there is no such way, and the caller computes it.
        """
        return None

    def lstm_backward(
        self, call: LSTMCall, kept: Any, dhs: Array, dh: Array | None, dc: Array | None
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Gradients of `lstm`, for a call that it took: whoever takes a call takes its backward, too.

        Parameters
        ----------
        call : LSTMCall
        kept : any object
            From `lstm`. Not changed: a second call with other gradients is allowed.
        dhs : array (N, T, H)
        dh, dc : array (N, H) or None
            Gradients of the states after the last step, beside what comes through `dhs`; None is zeros.

        Returns
        -------
        dx, dWx, dWh, db, dh, dc : arrays of the shapes of x, Wx, Wh, b, h and c
        """
        raise NotImplementedError(f"{type(self).__name__} takes no call of `lstm`, so that there is no backward")
