"""The plain recurrent network over whole sequences."""

from collections.abc import Sequence
from typing import NamedTuple

from attnbackends import Array

from ._recurrence import Steps, begin


class SavedRNN(NamedTuple):
    """What `rnn_backward` needs."""

    steps: Steps


def rnn(
    x: Array, Wx: Array, Wh: Array, b: Array, *, h: Array | None = None, mask: Array | None = None
) -> tuple[Array, Array, SavedRNN]:
    """``h = tanh(x @ Wx + h @ Wh + b)`` over T steps.

    Parameters
    ----------
    x : array (N, T, D)
    Wx : array (D, H)
    Wh : array (H, H)
    b : array (H,)
    h : array (N, H), optional
        State before the first step; zeros if left out.
    mask : boolean array (N, T), optional
        Where False, the step is skipped: the state goes through unchanged.

    Returns
    -------
    hs : array (N, T, H)
        State after each step.
    h : array (N, H)
        After the last step.
    saved : SavedRNN

    References
    ----------
    Deep Learning from Scratch 2, section 5.3.
    """
    steps = begin(1, x, Wx, Wh, b, mask, h)
    backend, hs = steps.backend, steps.h

    def chunk(n: slice) -> None:
        for t in range(steps.gates.shape[0]):
            a = steps.gates[t, n, ...]
            a += backend.matmul(hs[t, n, ...], steps.Wh)  # (n, H) x (H, H) -> (n, H)
            a += steps.b
            hs[t + 1, n, ...] = steps.keep(t, n, backend.xp.tanh(a), hs[t, n, ...])

    steps.forward(chunk)
    return steps.outputs(), steps.last(), SavedRNN(steps)


def rnn_backward(
    saved: SavedRNN, dhs: Array, *, dh: Array | None = None, out: Sequence[Array] | None = None
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of `rnn`: dhs (N, T, H), dh (N, H) of the last state -> dx, dWx, dWh, db, dh of the first state.

    dWx, dWh and db are written into the arrays of `out`, if given, and these returned.
    """
    steps = saved.steps
    backend, xp = steps.backend, steps.backend.xp
    steps.check_gradients(dhs, dh)
    T, N, H = steps.gates.shape
    da, carried = steps.buffer(T, N, H), steps.carried(dh)
    Wh_T = steps.transposed(steps.Wh)

    def chunk(n: slice) -> None:
        d_h = carried[n, ...]
        for t in reversed(range(T)):
            h, d_a = steps.h[t + 1, n, ...], da[t, n, ...]
            d_h += xp.astype(dhs[n, t, ...], d_h.dtype, copy=False)
            d_a[...] = d_h - d_h * h * h
            if steps.mask is not None:
                d_a *= xp.astype(steps.mask[t, n, ...], d_a.dtype)
            d_h = steps.keep(t, n, backend.matmul(d_a, Wh_T), d_h)  # (n, H) x (H, H) -> (n, H)
        carried[n, ...] = d_h

    steps.run(chunk)
    dx, carried = steps.narrow(steps.through_inputs(da), carried)
    return dx, *steps.through_weights((da, steps.h[:T, ...]), out=out), carried
