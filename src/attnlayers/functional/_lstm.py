"""Long short-term memory over whole sequences."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from attnbackends import Array, Backend, DType, LSTMCall, OwnLSTM

from ._recurrence import check_gradients, checked, stack_of, unstacked
from .arrays import sigmoid, unrounded
from .dtypes import narrow


class SavedLSTM(NamedTuple):
    """What `lstm_backward` needs."""

    backend: Backend
    dtype: DType  # of the arguments
    shape: tuple[int, ...]  # of hs
    inputs: int  # D
    compute_dtype: DType
    vjp: Callable[[Array, Array | None, Array | None, Array | None], tuple[Array, ...]]


class Kept(NamedTuple):
    """What the gradients look at again."""

    gates: Array  # (T, N, 4H): f, g, i, o after their activations
    h: Array  # (T + 1, N, H), the first state first
    c: Array  # (T + 1, N, H)
    tanh_c: Array  # (T, N, H), of the new cells


def lstm(
    x: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    *,
    h: Array | None = None,
    c: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array, Array, SavedLSTM]:
    """Long short-term memory over T steps.

    Parameters
    ----------
    x : array (N, T, D)
    Wx : array (D, 4H)
        The columns of the gates in the book's order: forget, new memory, input, output.
    Wh : array (H, 4H)
    b : array (4H,)
    h, c : array (N, H), optional
        State before the first step; zeros if left out.
    mask : boolean array (N, T), optional
        Where False, the step is skipped, whatever it holds: both states go through unchanged.

    Returns
    -------
    hs : array (N, T, H)
        State after each step.
    h, c : array (N, H)
        After the last step.
    saved : SavedLSTM

    References
    ----------
    Deep Learning from Scratch 2, sections 6.2 and 6.3.
    """
    backend, arguments = checked(4, x, Wx, Wh, b, mask, h=h, c=c)
    call = LSTMCall(*arguments)
    own = backend.lstm(call) or _forward(backend, call)
    hs, last_h, last_c = (narrow(backend, states, x.dtype) for states in (own.hs, own.h, own.c))
    return hs, last_h, last_c, SavedLSTM(backend, x.dtype, tuple(hs.shape), x.shape[2], call.x.dtype, own.vjp)


def lstm_backward(
    saved: SavedLSTM,
    dhs: Array,
    *,
    dh: Array | None = None,
    dc: Array | None = None,
    out: Sequence[Array] | None = None,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Gradients of `lstm`.

    Parameters
    ----------
    saved : SavedLSTM
    dhs : array (N, T, H)
    dh, dc : array (N, H), optional
        Gradients of the states after the last step, beside what comes through `dhs`.
    out : sequence of arrays, optional
        What to write dWx, dWh and db into; they are returned. At once, where those of Wh, Wx and b are the rows of one
        array (H + D + 1, 4H), as `TimeLSTM` has them.

    Returns
    -------
    dx, dWx, dWh, db : arrays of the shapes of x, Wx, Wh and b
    dh, dc : array (N, H)
        Gradients of the states before the first step.
    """
    backend, dtype = saved.backend, saved.dtype
    check_gradients(saved.shape, dhs, dh=dh, dc=dc)
    wide: list[Any] = [
        None if d is None else backend.xp.astype(d, saved.compute_dtype, copy=False) for d in (dhs, dh, dc)
    ]
    stack = stack_of(backend, out, saved.inputs, saved.shape[2], 4 * saved.shape[2])
    wide.append(unrounded(stack, saved.compute_dtype))
    found = saved.vjp(*wide)
    dx, dW, dh, dc = (narrow(backend, gradient, dtype) for gradient in found)
    return dx, *unstacked(dW, saved.shape[2], out, stack), dh, dc


# -- for every library: forward and backward of one call, step by step


def _forward(backend: Backend, call: LSTMCall) -> OwnLSTM:
    """The states, and `_backward`."""
    xp, (N, T, _), H = backend.xp, call.x.shape, call.Wh.shape[0]
    gates = xp.reshape(backend.matmul(_time_first(xp, call.x), call.Wx), (T, N, 4 * H))  # (T N, D) x (D, 4H)
    gates += call.b
    h, c, tanh_c = (backend.empty((steps, N, H), like=gates) for steps in (T + 1, T + 1, T))
    for states, first in ((h, call.h), (c, call.c)):
        states[0, ...] = 0 if first is None else first
    for t in range(T):
        a = gates[t, ...]
        a += backend.matmul(h[t, ...], call.Wh)  # (N, H) x (H, 4H) -> (N, 4H)
        f, g, i, o = _by_gate(a)
        for gate in (f, i, o):
            gate[...] = sigmoid(xp, gate)
        g[...] = xp.tanh(g)
        new_c = f * c[t, ...] + g * i
        tanh_c[t, ...] = xp.tanh(new_c)
        live = None if call.mask is None else call.mask[:, t, None]  # (N, 1)
        c[t + 1, ...] = _where(xp, live, new_c, c[t, ...])
        h[t + 1, ...] = _where(xp, live, o * tanh_c[t, ...], h[t, ...])
    hs = xp.astype(xp.permute_dims(h[1:, ...], (1, 0, 2)), h.dtype, copy=True)
    # Backward does not look at the last states: views of them do no harm.
    return OwnLSTM(hs, h[T, ...], c[T, ...], partial(_backward, backend, call, Kept(gates, h, c, tanh_c)))


def _backward(
    backend: Backend,
    call: LSTMCall,
    kept: Kept,
    dhs: Array,
    dh: Array | None,
    dc: Array | None,
    out: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """As `OwnLSTM.vjp`."""
    xp, (gates, h, c, tanh_c), (N, T, D), H = backend.xp, kept, call.x.shape, call.Wh.shape[0]
    da = backend.empty((T, N, 4 * H), like=gates)  # gradient of what the activations were given
    dh, dc = (xp.zeros_like(h[0, ...]) if d is None else xp.astype(d, d.dtype, copy=True) for d in (dh, dc))
    for t in reversed(range(T)):
        f, g, i, o = _by_gate(gates[t, ...])
        df, dg, di, do = _by_gate(da[t, ...])
        live = None if call.mask is None else call.mask[:, t, None]  # (N, 1)
        dh = dh + dhs[:, t, :]
        new_dc = dc + dh * o * (1 - tanh_c[t, ...] * tanh_c[t, ...])
        df[...] = new_dc * c[t, ...] * f * (1 - f)
        dg[...] = new_dc * i * (1 - g * g)
        di[...] = new_dc * g * i * (1 - i)
        do[...] = dh * tanh_c[t, ...] * o * (1 - o)
        if live is not None:
            backend.fill(da[t, ...], ~live, 0)
        dc = _where(xp, live, new_dc * f, dc)
        from_gates = backend.matmul(da[t, ...], xp.matrix_transpose(call.Wh))  # (N, 4H) x (4H, H) -> (N, H)
        dh = _where(xp, live, from_gates, dh)
    da = xp.reshape(da, (T * N, 4 * H))
    dx = xp.reshape(backend.matmul(da, xp.matrix_transpose(call.Wx)), (T, N, D))  # (T N, 4H) x (4H, D)
    dW = backend.empty((H + D + 1, 4 * H), like=da) if out is None else out
    for factor, part in ((xp.reshape(h[:T, ...], (T * N, H)), dW[:H, :]), (_time_first(xp, call.x), dW[H:-1, :])):
        backend.matmul(xp.matrix_transpose(factor), da, out=part)  # (H or D, T N) x (T N, 4H)
    dW[-1, :] = xp.sum(da, axis=0)
    return xp.permute_dims(dx, (1, 0, 2)), dW, dh, dc


def _time_first(xp: Any, x: Array) -> Array:
    """(N, T, D) -> (T N, D), so that the rows of a step are one block."""
    N, T, D = x.shape
    return xp.reshape(xp.permute_dims(x, (1, 0, 2)), (T * N, D))


def _by_gate(a: Array) -> tuple[Array, Array, Array, Array]:
    """(N, 4H) -> views of f, g, i, o, each (N, H)."""
    H = a.shape[1] // 4
    return a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]


def _where(xp: Any, live: Array | None, new: Array, old: Array) -> Array:
    """`new` in the sequences (N, ·) whose step counts, `old` in the others."""
    return new if live is None else xp.where(live, new, old)
