"""The gated recurrent unit over whole sequences."""

from collections.abc import Sequence
from typing import NamedTuple

from attnbackends import Array

from ._recurrence import Steps, begin


class SavedGRU(NamedTuple):
    """What `gru_backward` needs; the gates are z, r and the new memory after their activations."""

    steps: Steps
    reset: Array  # (T, N, H): r * h of the state before the step


def gru(
    x: Array, Wx: Array, Wh: Array, b: Array, *, h: Array | None = None, mask: Array | None = None
) -> tuple[Array, Array, SavedGRU]:
    """Gated recurrent unit over T steps: ``h = (1 - z) * h + z * new``.

    The new values are ``tanh(x @ Wx_new + (r * h) @ Wh_new + b_new)``.

    Parameters
    ----------
    x : array (N, T, D)
    Wx : array (D, 3H)
        The columns in the book's order: update gate z, reset gate r, new memory.
    Wh : array (H, 3H)
    b : array (3H,)
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
    saved : SavedGRU

    References
    ----------
    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014.
    Deep Learning from Scratch 2, appendix C.
    """
    steps = begin(3, x, Wx, Wh, b, mask, h)
    backend, xp, hs = steps.backend, steps.backend.xp, steps.h
    T, N, width = steps.gates.shape
    H = width // 3
    reset = steps.buffer(T, N, H)
    W_zr, W_new = steps.Wh[:, : 2 * H], steps.Wh[:, 2 * H :]

    def chunk(n: slice) -> None:
        for t in range(T):
            a, old = steps.gates[t, n, ...], hs[t, n, ...]
            a += steps.b
            zr, new, z, r = a[:, : 2 * H], a[:, 2 * H :], a[:, :H], a[:, H : 2 * H]
            zr += backend.matmul(old, W_zr)  # (n, H) x (H, 2H) -> (n, 2H)
            zr *= 0.5  # sigmoid(a) = tanh(a / 2) / 2 + 1/2
            backend.apply(xp.tanh, zr)
            zr *= 0.5
            zr += 0.5
            reset[t, n, ...] = r * old
            new += backend.matmul(reset[t, n, ...], W_new)  # (n, H) x (H, H) -> (n, H)
            backend.apply(xp.tanh, new)
            hs[t + 1, n, ...] = steps.keep(t, n, old + z * (new - old), old)

    steps.forward(chunk)
    return steps.outputs(), steps.last(), SavedGRU(steps, reset)


def gru_backward(
    saved: SavedGRU, dhs: Array, *, dh: Array | None = None, out: Sequence[Array] | None = None
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of `gru`: dhs (N, T, H), dh (N, H) of the last state -> dx, dWx, dWh, db, dh of the first state.

    dWx, dWh and db are written into the arrays of `out`, if given, and these returned.
    """
    steps = saved.steps
    backend, xp = steps.backend, steps.backend.xp
    steps.check_gradients(dhs, dh)
    T, N, width = steps.gates.shape
    H = width // 3
    da, carried = steps.buffer(T, N, width), steps.carried(dh)
    W_zr_T, W_new_T = (steps.transposed(W) for W in (steps.Wh[:, : 2 * H], steps.Wh[:, 2 * H :]))

    def chunk(n: slice) -> None:
        d_h = carried[n, ...]
        for t in reversed(range(T)):
            old, d_a = steps.h[t, n, ...], da[t, n, ...]
            z, r, new = (steps.gates[t, n, gate * H : (gate + 1) * H] for gate in range(3))
            d_z, d_r, d_new = (d_a[:, gate * H : (gate + 1) * H] for gate in range(3))
            d_h += xp.astype(dhs[n, t, ...], d_h.dtype, copy=False)
            through_z = d_h * z
            d_new[...] = through_z * (1 - new * new)
            d_z[...] = through_z * (1 - z) * (new - old)
            d_reset = backend.matmul(d_new, W_new_T)  # (n, H) x (H, H) -> (n, H)
            d_r[...] = d_reset * old * (r - r * r)
            if steps.mask is not None:
                d_a *= xp.astype(steps.mask[t, n, ...], d_a.dtype)
            d_old = d_h - through_z
            d_old += d_reset * r
            d_old += backend.matmul(d_a[:, : 2 * H], W_zr_T)  # (n, 2H) x (2H, H) -> (n, H)
            d_h = steps.keep(t, n, d_old, d_h)
        carried[n, ...] = d_h

    steps.run(chunk)
    dx, carried = steps.narrow(steps.through_inputs(da), carried)
    pairs = (da[..., : 2 * H], steps.h[:T, ...]), (da[..., 2 * H :], saved.reset)
    return dx, *steps.through_weights(*pairs, out=out), carried
