"""The steps of an LSTM on a CPU: few passes, each over one block of memory.

A step of a piece of the batch is one block of ``gates`` already. Inside it the gates lie one after the other,
(4, n, H), not side by side as their sums do, (n, 4H): a pass over one gate then takes less than half of the time.
"""

from typing import Any

import numpy as np

from ._base import Array

FEW_ROWS = 8
"""Fewer rows are left as the sums are: one product with all weights is worth more than the passes."""


def _by_gate(block: Array) -> Array:
    """A step's sums (n, 4H) as (4, n, H)."""
    n, width = block.shape
    return block.reshape(n, 4, width // 4).transpose(1, 0, 2)


def _kept(block: Array) -> Array:
    """A step's gates (4, n, H), in the memory (n, 4H) where backward looks for them."""
    n, width = block.shape
    return _by_gate(block) if n < FEW_ROWS else block.reshape(4, n, width // 4)


def steps(
    matmul: Any,
    gates: Array,
    Wh: Array,
    b: Array | None,
    first: tuple[Array | None, Array | None],
    h: Array,
    c: Array,
    tanh_c: Array,
    mask: Array | None,
) -> None:
    """As `RecurrentSteps.lstm_steps`, with `gates` in an order that `steps_backward` alone reads."""
    T, N, width = gates.shape
    H = width // 4
    states_h = h[:, :, :H]
    for states, state in zip((states_h, c), first, strict=True):
        states[0, ...] = 0 if state is None else state
    sums = np.empty((N, width), dtype=gates.dtype)
    a = _kept(sums)
    # sigmoid(a) = tanh(a / 2) / 2 + 1/2: one tanh serves all four gates
    half = np.array([0.5, 1, 0.5, 0.5], dtype=gates.dtype)[:, None, None]
    shift = 1 - half
    from_h = sums if N < FEW_ROWS else a
    W, bias = Wh if N < FEW_ROWS else _by_gate(Wh), None
    if b is None:
        W = np.multiply(W, half, out=np.empty(W.shape, dtype=W.dtype))
    else:
        bias = np.ascontiguousarray(np.broadcast_to(b.reshape(4, 1, H), a.shape))
    for t in range(T):
        matmul(h[t], W, out=from_h)  # (n, K) x (4, K, H) -> (4, n, H)
        if bias is not None:
            a += _by_gate(gates[t])
            a += bias
            a *= half
        np.tanh(a, out=a)
        a *= half
        kept = _kept(gates[t])
        np.add(a, shift, out=kept)
        f, g, i, o = kept
        new_c, tanh = c[t + 1], tanh_c[t]
        np.multiply(f, c[t], out=new_c)
        np.multiply(g, i, out=tanh)
        new_c += tanh
        np.tanh(new_c, out=tanh)
        np.multiply(o, tanh, out=states_h[t + 1])
        if mask is not None:
            for state in (c, states_h):
                np.copyto(state[t + 1], state[t], where=~mask[t])


def steps_backward(
    matmul: Any,
    gates: Array,
    c: Array,
    tanh_c: Array,
    dhs: Array,
    dh: Array,
    dc: Array,
    da: Array,
    Wh_T: Array,
    mask: Array | None,
    dx: Array | None,
) -> None:
    """As `RecurrentSteps.lstm_steps_backward`."""
    T, N, width = gates.shape
    slopes = _kept(np.empty((N, width), dtype=gates.dtype))
    s_f, s_g, s_i, s_o = slopes
    spare = np.empty_like(dh)
    H = width // 4
    through = dh if dx is None else np.empty((N, Wh_T.shape[1]), dtype=dh.dtype)
    for t in reversed(range(T)):
        kept = _kept(gates[t])
        f, g, i, o = kept
        d_f, d_g, d_i, d_o = _by_gate(da[t])
        masked = None if mask is None else (~mask[t], dh + dhs[:, t], dc.copy())
        np.subtract(1, kept, out=slopes)
        slopes *= kept  # g (1 - g) is not what the new memory needs, yet one pass costs less than two
        np.multiply(g, g, out=s_g)
        np.subtract(1, s_g, out=s_g)
        dh += dhs[:, t]
        s_o *= dh
        np.multiply(s_o, tanh_c[t], out=d_o)
        np.multiply(tanh_c[t], tanh_c[t], out=spare)
        np.subtract(1, spare, out=spare)
        spare *= o
        spare *= dh
        dc += spare
        s_f *= c[t]
        np.multiply(s_f, dc, out=d_f)
        s_i *= g
        np.multiply(s_i, dc, out=d_i)
        s_g *= i
        np.multiply(s_g, dc, out=d_g)
        dc *= f
        if masked is not None:
            np.copyto(da[t], 0, where=masked[0])
            np.copyto(dc, masked[2], where=masked[0])
        matmul(da[t], Wh_T, out=through)  # (n, 4H) x (4H, H + D) -> (n, H + D)
        if dx is not None:
            dx[t] = through[:, H:]
            dh[...] = through[:, :H]
        if masked is not None:
            np.copyto(dh, masked[1], where=masked[0])
