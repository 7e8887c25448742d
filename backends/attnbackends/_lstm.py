"""The steps of an LSTM on a CPU: few passes, each over one block of memory.

A step of a piece of the batch is one block of ``gates`` already. Inside it the gates lie one after the other,
(4, n, H), not side by side as their sums do, (n, 4H): a pass over one gate then takes less than half of the time.
"""

from functools import cache
from typing import Any

import numpy as np

from ._base import Array

FEW_ROWS = 8
"""Fewer rows are left as the sums are: one product with all weights is worth more than the passes."""

HALVES = (0.5, 1, 0.5, 0.5)
"""For f, g, i, o: sigmoid(a) = tanh(a / 2) / 2 + 1/2, so that one tanh serves all four gates."""

SLOPES_BYTES = 1024 * 1024
"""Of the gates whose slopes are made at once: a call for several steps takes no more of a cache, and threads meet less
often at the interpreter's lock."""


def _by_gate(block: Array) -> Array:
    """Sums of steps (..., n, 4H) as (..., 4, n, H)."""
    *steps, n, width = block.shape
    return block.reshape(*steps, n, 4, width // 4).swapaxes(-3, -2)


def _kept(block: Array) -> Array:
    """The gates of steps (..., 4, n, H), in the memory (..., n, 4H) where backward looks for them."""
    *steps, n, width = block.shape
    return _by_gate(block) if n < FEW_ROWS else block.reshape(*steps, 4, n, width // 4)


def steps(
    matmul: Any,
    in_blocks: Any,
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
    if N < FEW_ROWS:
        _steps_of_few_rows(matmul, gates, Wh, b, h, c, tanh_c, mask)
        return
    half = np.array(HALVES, dtype=gates.dtype)[:, None, None]
    shift = 1 - half
    W, bias = _by_gate(Wh), None
    if b is None:
        W = np.multiply(W, half, out=np.empty(W.shape, dtype=W.dtype))
    W = in_blocks(W)  # (4, J, K, w)
    J, w = W.shape[1], W.shape[3]
    sums = np.empty((4, N, J * w), dtype=gates.dtype)
    from_h, a = sums.reshape(4, N, J, w).swapaxes(1, 2), sums[:, :, :H]
    if b is not None:
        bias = np.ascontiguousarray(np.broadcast_to(b.reshape(4, 1, H), a.shape))
    for t in range(T):
        matmul(h[t], W, out=from_h)  # (n, K) x (4, J, K, w) -> (4, J, n, w)
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


def _steps_of_few_rows(
    matmul: Any,
    gates: Array,
    Wh: Array,
    b: Array,
    h: Array,
    c: Array,
    tanh_c: Array,
    mask: Array | None,
) -> None:
    """`steps` from a first state on, with the gates side by side: what counts is the number of calls."""
    gates += b
    T, N, width = gates.shape
    half, shift = _halves(width // 4, gates.dtype)
    sums = np.empty((N, width), dtype=gates.dtype)
    by_gate = gates.reshape(T, N, 4, width // 4)
    for t in range(T):
        a, gate, new_c, tanh, new_h = gates[t], by_gate[t], c[t + 1], tanh_c[t], h[t + 1]
        matmul(h[t], Wh, out=sums)
        np.add(a, sums, a)
        np.multiply(a, half, a)
        np.tanh(a, a)
        np.multiply(a, half, a)
        np.add(a, shift, a)
        np.multiply(gate[:, 0], c[t], new_c)
        np.multiply(gate[:, 1], gate[:, 2], tanh)
        np.add(new_c, tanh, new_c)
        np.tanh(new_c, tanh)
        np.multiply(gate[:, 3], tanh, new_h)
        if mask is not None:
            for new, old in ((new_c, c[t]), (new_h, h[t])):
                np.copyto(new, old, where=~mask[t])


@cache
def _halves(H: int, dtype: Any) -> tuple[Array, Array]:
    """What turns tanh into the activations of four gates of H: factors of argument and result, and what is added."""
    half = np.repeat(np.array(HALVES, dtype=dtype), H)[None, :]  # two axes as the sums: no broadcast
    return half, 1 - half


def steps_backward(
    matmul: Any,
    in_blocks: Any,
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
    H = width // 4
    W = in_blocks(Wh_T)  # (J, 4H, w)
    J, _, w = W.shape
    room = np.empty((N, J * w), dtype=gates.dtype)
    through = room.reshape(N, J, w).transpose(1, 0, 2)
    spare = np.empty((N, H), dtype=gates.dtype)
    carried = dh
    at_once = max(1, SLOPES_BYTES // max(1, N * width * gates.itemsize))
    for end in range(T, 0, -at_once):
        begin = max(0, end - at_once)
        slopes, c_slope = _slopes(gates[begin:end], c[begin:end], tanh_c[begin:end])
        for t in reversed(range(begin, end)):
            slope = slopes[t - begin]
            da_by_gate = _by_gate(da[t])
            masked = None if mask is None else (~mask[t], carried + dhs[:, t], dc.copy())
            carried += dhs[:, t]
            np.multiply(c_slope[t - begin], carried, spare)
            dc += spare
            np.multiply(slope[:3], dc, da_by_gate[:3])
            np.multiply(slope[3], carried, da_by_gate[3])
            dc *= _kept(gates[t])[0]
            if masked is not None:
                np.copyto(da[t], 0, where=masked[0])
                np.copyto(dc, masked[2], where=masked[0])
            matmul(da[t], W, out=through)  # (n, 4H) x (J, 4H, w) -> (J, n, w)
            carried = room[:, :H]
            if dx is not None:
                dx[t] = room[:, H : Wh_T.shape[1]]
            if masked is not None:
                np.copyto(carried, masked[1], where=masked[0])
    dh[...] = carried


def _slopes(gates: Array, c: Array, tanh_c: Array) -> tuple[Array, Array]:
    """What a gradient meets on its way through some steps, as far as it does not depend on that gradient.

    From dc to the sums of f, g and i, and from dh to that of o, (t, 4, n, H); from dh to dc, (t, n, H).
    """
    kept = _kept(gates)
    slopes = np.subtract(1, kept)
    slopes *= kept  # g (1 - g) is not what the new memory needs, yet one pass costs less than two
    f, g, i, o = (slopes[:, gate] for gate in range(4))
    np.multiply(kept[:, 1], kept[:, 1], g)
    np.subtract(1, g, g)
    f *= c
    g *= kept[:, 2]
    i *= kept[:, 1]
    o *= tanh_c
    c_slope = np.multiply(tanh_c, tanh_c)
    np.subtract(1, c_slope, c_slope)
    c_slope *= kept[:, 3]
    return slopes, c_slope
