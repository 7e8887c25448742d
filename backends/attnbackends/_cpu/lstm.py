"""The LSTM on a CPU: few passes, each over one block of memory, and products that BLAS has its best kernels for.

- Where inputs are few, a step multiplies rows of the state, the input and 1 by all weights and biases at once.
- The weights of each gate lie in a block of their own, in blocks of columns again where products are made in parts.
- A step of a chunk of the batch is one block of ``gates``. Inside it the gates lie one after the other, (4, n, H), not
  side by side as their sums do, (n, 4H): a pass over one gate then takes less than half of the time.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._base import Array
from .._lstm import LSTMCall, OwnLSTM

if TYPE_CHECKING:
    from .backend import NumpyBackend

FEW_SEQUENCES = 8
"""Sequences below which a step is left as it is, gates side by side: it costs its number of calls and reading the
weights once, so that one product with all weights is worth more than the passes, and what the inputs add is worth a
product of its own. benchmarks/NOTES.md, "The LSTM on two cores" and "Small calls"."""

INPUTS_EACH_STATE = 1 / 4
"""Inputs to each number of a state up to which rows hold both. With more of them a product for the inputs of all steps
pays for the passes that it takes. benchmarks/NOTES.md, "The LSTM on two cores"."""

CHUNK_ROWS = 64
"""Sequences of a chunk at least, where a batch is cut for threads: fewer rows would waste the packing of the weights in
each product. benchmarks/NOTES.md, "The LSTM on two cores"."""

SHARED_MULTIPLICATIONS = 2**22
"""Multiplications of a step's product above which a batch of less than two chunks goes through whole and threads share
each product: about 0.1 ms of one core, what `products.PIECE_FLOPS` asks of a piece of any product."""

SLOPES_BYTES = 1024 * 1024
"""Bytes of the gates whose slopes are made at once: a call for several steps takes no more of a cache, and threads meet
less often at the interpreter's lock. benchmarks/NOTES.md, "The LSTM in parts"."""

ROW_GAP = 16
"""Numbers between rows, which share a few places of a cache where they lie a power of two apart: transposing
(256, 1024) takes 0.2 to 0.65 of the time with it. benchmarks/NOTES.md, "The LSTM on two cores" and "One LSTM"."""

HALVES = (0.5, 1, 0.5, 0.5)
"""For f, g, i, o: sigmoid(a) = tanh(a / 2) / 2 + 1/2, so that one tanh serves all four gates."""


class Kept(NamedTuple):
    """What `backward` reads again."""

    rows: Array  # (T + 1, N, H): the states, the first ones before the first step; or (T + 1, N, H + D + 1): h, x and 1
    gates: Array  # (T, N, 4H): f, g, i, o after their activations, in the order of `_by_gate` or `_in_a_row`
    c: Array  # (T + 1, N, H)
    tanh_c: Array  # (T, N, H), of the new cells


def forward(cpu: "NumpyBackend", in_blocks: Callable[[Array], Array], call: LSTMCall) -> OwnLSTM:
    """As `Backend.lstm`; takes every call.

    `in_blocks` lays out a second operand (..., K, N) of many products as blocks of its columns (..., J, K, w).
    """
    (N, T, D), H, dtype = call.x.shape, call.Wh.shape[0], call.x.dtype
    x, skipped = call.x.swapaxes(0, 1), _skipped(call)
    few = N < FEW_SEQUENCES
    joined = not few and D <= H * INPUTS_EACH_STATE
    rows = _side_by_side(x, H, T + 1) if joined else np.empty((T + 1, N, H), dtype)
    gates, c, tanh_c = (np.empty(shape, dtype) for shape in ((T, N, 4 * H), (T + 1, N, H), (T, N, H)))
    h, hs = rows[:, :, :H], np.empty((N, T, H), dtype)
    for states, first in ((h, call.h), (c, call.c)):
        states[0] = 0 if first is None else first

    def multiply_inputs() -> None:
        flat, out = x.reshape(T * N, D), gates.reshape(T * N, 4 * H)
        cpu.matmul(flat, call.Wx, out=out)  # (T N, D) x (D, 4H) -> (T N, 4H)

    def chunk(n: slice) -> None:
        arrays = rows[:, n], gates[:, n], c[:, n], tanh_c[:, n], None if skipped is None else skipped[:, n]
        if few:
            multiply_inputs()
            _steps_of_few_rows(_matmul(cpu, N), call.Wh, call.b, *arrays)
        else:
            _steps(cpu.matmul, W, None if joined else call.b, *arrays)
        hs[n] = h[1:, n].swapaxes(0, 1)

    if joined:
        stacked = _by_gate(np.concatenate((call.Wh, call.Wx, call.b[None, :])))  # (4, H + D + 1, H)
        W = in_blocks(np.multiply(stacked, _halves_of(dtype), out=np.empty(stacked.shape, dtype)))
    elif not few:
        W = in_blocks(_by_gate(call.Wh))
        multiply_inputs()
    _over_batch(cpu, chunk, N, H, dtype.itemsize)
    # Backward does not look at the last states: views of them do no harm.
    return OwnLSTM(hs, h[T], c[T], partial(backward, cpu, in_blocks, call, Kept(rows, gates, c, tanh_c)))


def backward(
    cpu: "NumpyBackend",
    in_blocks: Callable[[Array], Array],
    call: LSTMCall,
    kept: Kept,
    dhs: Array,
    dh: Array | None,
    dc: Array | None,
    out: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """As `OwnLSTM.vjp`."""
    rows, gates, c, tanh_c = kept
    (T, N, H), D, dtype = tanh_c.shape, call.x.shape[2], gates.dtype
    skipped, joined = _skipped(call), rows.shape[2] > H
    da = _empty_apart((T, N, 4 * H), dtype)
    d_h, d_c = (np.zeros((N, H), dtype) if last is None else last.copy() for last in (dh, dc))
    dx = np.empty((T, N, D), dtype) if joined else None
    W = np.concatenate((call.Wh, call.Wx)) if joined else call.Wh  # (K, 4H)
    W_T = in_blocks(W.T if N < FEW_SEQUENCES else _transposed(W))  # (J, 4H, w)

    def chunk(n: slice) -> None:
        states = gates[:, n], c[:, n], tanh_c[:, n], None if skipped is None else skipped[:, n]
        written = d_h[n], d_c[n], da[:, n], None if dx is None else dx[:, n]
        _steps_backward(_matmul(cpu, N), W_T, *states, dhs[n], *written)

    _over_batch(cpu, chunk, N, H, dtype.itemsize)
    flat = da.reshape(T * N, 4 * H)
    if dx is None:
        dx = cpu.matmul(flat, call.Wx.T).reshape(T, N, D)  # (T N, 4H) x (4H, D) -> (T N, D)
        h, rows = rows, _side_by_side(call.x.swapaxes(0, 1), H, T)
        rows[:, :, :H] = h[:T]
    # In one product: alone, that of a few inputs with all of `da` takes as long as a third of the states'.
    dW = cpu.matmul(rows[:T].reshape(T * N, H + D + 1).T, flat, out=out)  # (H + D + 1, T N) x (T N, 4H)
    return dx.swapaxes(0, 1), dW, d_h, d_c


def _over_batch(cpu: "NumpyBackend", chunk: Callable[[slice], None], N: int, H: int, itemsize: int) -> None:
    """Call `chunk` with slices of the batch, side by side, or with all of it where threads share its products."""
    if N < 2 * CHUNK_ROWS and N * 4 * H * H > SHARED_MULTIPLICATIONS:
        with np.errstate(all="ignore"):
            chunk(slice(0, N))
    else:
        cpu.map(chunk, cpu.chunks(N, 2 * 4 * H * itemsize, at_least=CHUNK_ROWS))


def _matmul(cpu: "NumpyBackend", N: int) -> Callable[..., Array]:
    """The product of a step; NumPy's own where that takes less than to think about it."""
    return np.matmul if N < FEW_SEQUENCES and cpu.workers.here.working else cpu.matmul


def _skipped(call: LSTMCall) -> Array | None:
    """The steps that leave the states as they were, (T, N, 1)."""
    return None if call.mask is None else ~call.mask.T[:, :, None]


def _side_by_side(x: Array, H: int, steps: int) -> Array:
    """Room for states of width H, x (T, N, D) and 1 in each row: (steps, N, H + D + 1)."""
    T, N, D = x.shape
    rows = np.empty((steps, N, H + D + 1), x.dtype)
    rows[:T, :, H : H + D] = x
    rows[:, :, H + D] = 1
    return rows


def _empty_apart(shape: tuple[int, ...], dtype: Any) -> Array:
    """An empty array whose rows are no power of two apart."""
    return np.empty((*shape[:-1], shape[-1] + ROW_GAP), dtype)[..., : shape[-1]]


def _transposed(W: Array) -> Array:
    """W (K, M) -> (M, K), in an array of its own."""
    apart = _empty_apart(W.shape, W.dtype)
    apart[...] = W
    return np.ascontiguousarray(apart.T)


def _by_gate(sums: Array) -> Array:
    """Sums (..., n, 4H) as (..., 4, n, H)."""
    *steps, n, width = sums.shape
    return sums.reshape(*steps, n, 4, width // 4).swapaxes(-3, -2)


def _in_a_row(gates: Array) -> Array:
    """The gates of steps as (..., 4, n, H), from the memory (..., n, 4H) that holds them."""
    *steps, n, width = gates.shape
    return _by_gate(gates) if n < FEW_SEQUENCES else gates.reshape(*steps, 4, n, width // 4)


@cache
def _halves_of(dtype: Any) -> Array:
    """`HALVES` for the gates (4, n, H)."""
    return np.array(HALVES, dtype=dtype)[:, None, None]


@cache
def _halves_side_by_side(H: int, dtype: Any) -> tuple[Array, Array]:
    """What turns tanh into the activations of four gates of H: factors of argument and result, and what is added."""
    half = np.repeat(np.array(HALVES, dtype=dtype), H)[None, :]  # two axes as the sums: no broadcast
    return half, 1 - half


def _steps(
    matmul: Any,
    W: Array,
    b: Array | None,
    rows: Array,
    gates: Array,
    c: Array,
    tanh_c: Array,
    skipped: Array | None,
) -> None:
    """All steps of a chunk: W (4, J, K, w) in blocks; `b` (4H,) where `rows` and `W` hold states alone, unscaled."""
    T, N, H = tanh_c.shape
    half = _halves_of(gates.dtype)
    shift = 1 - half
    _, J, _, w = W.shape
    sums = np.empty((4, N, J * w), dtype=gates.dtype)
    from_rows, a = sums.reshape(4, N, J, w).swapaxes(1, 2), sums[:, :, :H]
    bias = None if b is None else np.ascontiguousarray(np.broadcast_to(b.reshape(4, 1, H), a.shape))
    states_h = rows[:, :, :H]
    for t in range(T):
        matmul(rows[t], W, out=from_rows)  # (n, K) x (4, J, K, w) -> (4, J, n, w)
        if bias is not None:
            a += _by_gate(gates[t])
            a += bias
            a *= half
        np.tanh(a, out=a)
        a *= half
        kept = _in_a_row(gates[t])
        np.add(a, shift, out=kept)
        f, g, i, o = kept
        new_c, tanh = c[t + 1], tanh_c[t]
        np.multiply(f, c[t], out=new_c)
        np.multiply(g, i, out=tanh)
        new_c += tanh
        np.tanh(new_c, out=tanh)
        np.multiply(o, tanh, out=states_h[t + 1])
        if skipped is not None:
            for state in (c, states_h):
                np.copyto(state[t + 1], state[t], where=skipped[t])


def _steps_of_few_rows(
    matmul: Any, Wh: Array, b: Array, h: Array, gates: Array, c: Array, tanh_c: Array, skipped: Array | None
) -> None:
    """All steps of a few sequences, with the gates side by side: what counts is the number of calls."""
    gates += b
    T, N, width = gates.shape
    half, shift = _halves_side_by_side(width // 4, gates.dtype)
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
        if skipped is not None:
            for new, old in ((new_c, c[t]), (new_h, h[t])):
                np.copyto(new, old, where=skipped[t])


def _steps_backward(
    matmul: Any,
    W: Array,
    gates: Array,
    c: Array,
    tanh_c: Array,
    skipped: Array | None,
    dhs: Array,
    dh: Array,
    dc: Array,
    da: Array,
    dx: Array | None,
) -> None:
    """All steps of a chunk, last one first: writes da (T, n, 4H), dx (T, n, D) and the gradients of the first states.

    W (J, 4H, w) holds the transposed weights of the states and, behind them where there is `dx`, of the inputs.
    """
    T, N, H = tanh_c.shape
    J, _, w = W.shape
    product = np.empty((N, J * w), dtype=gates.dtype)
    blocks = product.reshape(N, J, w).swapaxes(0, 1)
    spare = np.empty((N, H), dtype=gates.dtype)
    carried = dh
    at_once = max(1, SLOPES_BYTES // max(1, gates[:1].nbytes))
    for end in range(T, 0, -at_once):
        begin = max(0, end - at_once)
        slopes, c_slope = _slopes(gates[begin:end], c[begin:end], tanh_c[begin:end])
        for t in reversed(range(begin, end)):
            slope = slopes[t - begin]
            da_by_gate = _by_gate(da[t])
            carried += dhs[:, t]
            before = None if skipped is None else (carried.copy(), dc.copy())
            np.multiply(c_slope[t - begin], carried, spare)
            dc += spare
            np.multiply(slope[:3], dc, da_by_gate[:3])
            np.multiply(slope[3], carried, da_by_gate[3])
            dc *= _in_a_row(gates[t])[0]
            if skipped is not None and before is not None:
                np.copyto(da[t], 0, where=skipped[t])
                np.copyto(dc, before[1], where=skipped[t])
            matmul(da[t], W, out=blocks)  # (n, 4H) x (J, 4H, w) -> (J, n, w)
            carried = product[:, :H]
            if dx is not None:
                dx[t] = product[:, H : H + dx.shape[2]]
            if skipped is not None and before is not None:
                np.copyto(carried, before[0], where=skipped[t])
    dh[...] = carried


def _slopes(gates: Array, c: Array, tanh_c: Array) -> tuple[Array, Array]:
    """What a gradient meets on its way through some steps, as far as it does not depend on that gradient.

    From dc to the sums of f, g and i, and from dh to that of o, (t, 4, n, H); from dh to dc, (t, n, H).
    """
    kept = _in_a_row(gates)
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
