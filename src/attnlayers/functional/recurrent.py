"""Recurrent networks over whole sequences: one product for the inputs of all steps, then step by step.

Entries of a batch do not meet until the gradients of the weights are summed: pieces of the batch run through
all steps side by side. Inside, arrays are time first, so that a step is one block of memory.
"""

from dataclasses import dataclass

from attnbackends import Array, Backend

from ._check import check
from ._dtypes import wide, widen


@dataclass(frozen=True)
class SavedLSTM:
    """What `lstm_backward` needs; T is first, all in the dtype to compute in."""

    backend: Backend
    dtype: object  # of the arguments
    x1: Array  # (T, N, D + 1): the inputs and a 1, so that the bias is one more weight
    W1: Array  # (D + 1, 4H)
    Wh: Array  # (H, 4H)
    mask: Array | None  # (T, N, 1)
    gates: Array  # (T, N, 4H): f, g, i, o after their activations
    h: Array  # (T + 1, N, H), the initial state first
    c: Array  # (T + 1, N, H)

    def pieces(self) -> list[slice]:
        """The batch in pieces; fewer than 64 rows would waste the packing of the weights in each product."""
        N, width = self.gates.shape[1:]
        return self.backend.chunks(N, 2 * width * self.backend.xp.finfo(self.gates.dtype).bits // 8, at_least=64)


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
    backend = check(
        x=(x, "N T D"), Wx=(Wx, "D 4H"), Wh=(Wh, "H 4H"), b=(b, "4H"), h=(h, "N H"), c=(c, "N H"),
        mask=(mask, "N T: bool"),
    )  # fmt: skip
    xp = backend.xp
    N, T, D = x.shape
    H = Wh.shape[0]
    if Wh.shape[1] != 4 * H:
        raise ValueError(f"`Wh` must have shape (H, 4H), four gates side by side, got {tuple(Wh.shape)}")
    dtype = wide(backend, x.dtype)

    def room(*shape: int) -> Array:
        return backend.empty(shape, like=x, dtype=dtype)

    x1 = room(T, N, D + 1)
    time_mask = None if mask is None else xp.permute_dims(mask, (1, 0))[..., None]
    time_x = widen(backend, xp.permute_dims(x, (1, 0, 2)))
    x1[..., :D] = time_x if mask is None else xp.where(time_mask, time_x, xp.zeros_like(time_x[:1, :1, :1]))
    x1[..., D:] = 1
    W1 = room(D + 1, 4 * H)
    W1[:D, :] = widen(backend, Wx)
    W1[D, :] = widen(backend, b)
    wide_Wh = widen(backend, Wh)
    gates, hs, cs = room(T, N, 4 * H), room(T + 1, N, H), room(T + 1, N, H)
    for states, first in ((hs, h), (cs, c)):
        states[0, ...] = 0 if first is None else widen(backend, first)
    out = backend.empty((N, T, H), like=x)
    saved = SavedLSTM(backend, x.dtype, x1, W1, wide_Wh, time_mask, gates, hs, cs)

    # sigmoid(a) = tanh(a / 2) / 2 + 1/2: with the halving done in the weights, one tanh serves all four gates.
    halved = room(4 * H)
    halved[...] = 0.5
    halved[H : 2 * H] = 1
    half_W1, half_Wh = W1 * halved, wide_Wh * halved
    flat = xp.reshape(gates, (T * N, 4 * H))
    backend.matmul(xp.reshape(x1, (T * N, D + 1)), half_W1, out=flat)  # (T N, D + 1) x (D + 1, 4H)

    def piece(n: slice) -> None:
        for t in range(T):
            a = gates[t, n, ...]
            a += backend.matmul(hs[t, n, ...], half_Wh)  # (n, H) x (H, 4H) -> (n, 4H)
            backend.apply(xp.tanh, a)
            for sigmoid in (a[:, :H], a[:, 2 * H :]):
                sigmoid *= 0.5
                sigmoid += 0.5
            f, g, i, o = (a[:, gate * H : (gate + 1) * H] for gate in range(4))
            new_c = f * cs[t, n, ...]
            new_c += g * i
            new_h = xp.tanh(new_c)
            new_h *= o
            if time_mask is not None:
                new_c = xp.where(time_mask[t, n, ...], new_c, cs[t, n, ...])
                new_h = xp.where(time_mask[t, n, ...], new_h, hs[t, n, ...])
            cs[t + 1, n, ...] = new_c
            hs[t + 1, n, ...] = new_h
        out[n, ...] = xp.astype(xp.permute_dims(hs[1:, n, ...], (1, 0, 2)), x.dtype, copy=False)

    backend.map(piece, saved.pieces())
    last_h, last_c = (xp.astype(states[T, ...], x.dtype, copy=True) for states in (hs, cs))
    return out, last_h, last_c, saved


def lstm_backward(
    saved: SavedLSTM, dhs: Array, *, dh: Array | None = None, dc: Array | None = None
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Gradients of `lstm`.

    Parameters
    ----------
    saved : SavedLSTM
    dhs : array (N, T, H)
    dh, dc : array (N, H), optional
        Gradients of the states after the last step, beside what comes through `dhs`.

    Returns
    -------
    dx, dWx, dWh, db : arrays of the shapes of x, Wx, Wh and b
    dh, dc : array (N, H)
        Gradients of the states before the first step.
    """
    backend, xp = saved.backend, saved.backend.xp
    T, N, width = saved.gates.shape
    H, D = width // 4, saved.W1.shape[0] - 1
    check(dhs=(dhs, "N T H"), dh=(dh, "N H"), dc=(dc, "N H"))
    if tuple(dhs.shape) != (N, T, H):
        raise ValueError(f"`dhs` must have the shape of the output, {(N, T, H)}, got {tuple(dhs.shape)}")
    dtype = saved.gates.dtype
    da = backend.empty((T, N, width), like=saved.gates)
    first_dh, first_dc = (backend.empty((N, H), like=saved.gates) for _ in range(2))
    Wh_T = xp.matrix_transpose(saved.Wh)

    def piece(n: slice) -> None:
        d_h = xp.zeros_like(saved.h[0, n, ...]) if dh is None else xp.astype(dh[n, ...], dtype, copy=True)
        d_c = xp.zeros_like(saved.c[0, n, ...]) if dc is None else xp.astype(dc[n, ...], dtype, copy=True)
        for t in reversed(range(T)):
            f, g, i, o = (saved.gates[t, n, gate * H : (gate + 1) * H] for gate in range(4))
            d_f, d_g, d_i, d_o = (da[t, n, gate * H : (gate + 1) * H] for gate in range(4))
            d_h += widen(backend, dhs[n, t, ...])
            kept_h, kept_c = d_h, d_c
            tanh_c = xp.tanh(saved.c[t + 1, n, ...])
            d_o[...] = d_h * tanh_c
            d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
            d_f[...] = d_c * saved.c[t, n, ...]
            d_g[...] = d_c * i * (1 - g * g)
            d_i[...] = d_c * g
            a, d_a = saved.gates[t, n, ...], da[t, n, ...]
            for part in (slice(0, H), slice(2 * H, None)):
                d_a[:, part] *= a[:, part] * (1 - a[:, part])
            d_c = d_c * f
            if saved.mask is not None:
                live = xp.astype(saved.mask[t, n, ...], dtype)
                d_a *= live
                d_c = xp.where(saved.mask[t, n, ...], d_c, kept_c)
            d_h = backend.matmul(d_a, Wh_T)  # (n, 4H) x (4H, H) -> (n, H)
            if saved.mask is not None:
                d_h = xp.where(saved.mask[t, n, ...], d_h, kept_h)
        first_dh[n, ...] = d_h
        first_dc[n, ...] = d_c

    backend.map(piece, saved.pieces())
    flat = xp.reshape(da, (T * N, width))
    dx = backend.matmul(flat, xp.matrix_transpose(saved.W1[:D, :]))  # (T N, 4H) x (4H, D) -> (T N, D)
    dW1 = backend.matmul(xp.matrix_transpose(xp.reshape(saved.x1, (T * N, D + 1))), flat)  # -> (D + 1, 4H)
    dWh = backend.matmul(xp.matrix_transpose(xp.reshape(saved.h[:T, ...], (T * N, H))), flat)  # -> (H, 4H)
    dx = xp.permute_dims(xp.reshape(dx, (T, N, D)), (1, 0, 2))
    gradients = (dx, dW1[:D, :], dWh, dW1[D, :], first_dh, first_dc)
    dx, dWx, dWh, db, first_dh, first_dc = (xp.astype(d, saved.dtype, copy=False) for d in gradients)
    return dx, dWx, dWh, db, first_dh, first_dc
