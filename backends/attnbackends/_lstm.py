"""The LSTM as a whole: what a library is given, and what it gives back where it has a way of its own.

Libraries disagree on what a step costs: a CPU wants few passes over few bytes, CUDA few kernels.
"""

from collections.abc import Callable
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


class OwnLSTM(NamedTuple):
    """What a library's own LSTM returns.

    Attributes
    ----------
    hs : array (N, T, H)
        State after each step. It shares no memory with the rest.
    h, c : arrays (N, H)
        Both states after the last step.
    vjp : callable
        From dhs (N, T, H) and dh, dc (N, H) or None, the gradients of the states after the last step beside what comes
        through `dhs`, to dx, dW and the gradients of the first states, dh and dc. dW (H + D + 1, 4H) are the gradients
        of Wh, Wx and b below each other, which one product can make: in the array that is the last argument, or in a
        new one where that is None. It may be called again.
    """

    hs: Array
    h: Array
    c: Array
    vjp: Callable[[Array, Array | None, Array | None, Array | None], tuple[Array, ...]]
