"""The LSTM on CUDA: few kernels. One for all steps of a few sequences, else a product and one kernel a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._base import Array
from .._lstm import LSTMCall

FEW_SEQUENCES = 16
"""Sequences up to which one kernel takes them through all steps, a block each; more of them are better off with a
product a step."""

MOST_UNITS = 1024
"""Numbers of a state up to which a block's shared memory holds what that kernel needs, in float64, too."""

MOST_NUMBERS = 2**31
"""Numbers of an array that a kernel's 32-bit indices do not reach."""

BLOCK_THREADS = 256
"""Threads of a block of the kernels that have one for each number of a state."""


class Kept(NamedTuple):
    """What `CudaLSTM.backward` reads again."""

    x: Array  # (T N, D), time first
    gates: Array  # (T, N, 4H): f, g, i, o after their activations
    h: Array  # (T + 1, N, H), the first states before the first step
    c: Array  # (T + 1, N, H)
    tanh_c: Array  # (T, N, H), of the new cells


class CudaLSTM:
    """An LSTM by the kernels of ``kernels/lstm.cu``.

    Parameters
    ----------
    xp : module
        CuPy.
    matmul, launch : callable
        `CupyBackend.matmul` and `Kernels.launch`.
    """

    def __init__(self, xp: Any, matmul: Callable[..., Array], launch: Callable[..., None]) -> None:
        self._xp, self._matmul, self._launch = xp, matmul, launch

    def forward(self, call: LSTMCall) -> tuple[Array, Array, Array, Kept] | None:
        """hs, h and c as in `OwnLSTM`, and what `backward` reads.

        None for what the kernels cannot index, and for what they are not compiled for.
        """
        xp, (N, T, D), H = self._xp, call.x.shape, call.Wh.shape[0]
        dtype = call.x.dtype
        if 0 in (N, T, H) or N * 4 * H >= MOST_NUMBERS or H * 4 * H >= MOST_NUMBERS or dtype.char not in "fd":
            return None
        x = call.x.transpose(1, 0, 2).reshape(T * N, D)
        gates = self._matmul(x, call.Wx).reshape(T, N, 4 * H)  # (T N, D) x (D, 4H) -> (T N, 4H)
        h, c, tanh_c = (xp.empty((steps, N, H), dtype) for steps in (T + 1, T + 1, T))
        Wh, b = xp.ascontiguousarray(call.Wh), xp.ascontiguousarray(call.b)
        if call.mask is None and N <= FEW_SEQUENCES and H <= MOST_UNITS and gates.size < MOST_NUMBERS:
            self._all_steps(Wh, b, call, gates, h, c, tanh_c)
        else:
            self._step_by_step(Wh, b, call, gates, h, c, tanh_c)
        hs = xp.ascontiguousarray(h[1:].transpose(1, 0, 2))
        return hs, h[T], c[T], Kept(x, gates, h, c, tanh_c)

    def _all_steps(self, Wh: Array, b: Array, call: LSTMCall, gates: Array, h: Array, c: Array, tanh_c: Array) -> None:
        T, N, H = tanh_c.shape
        first = [np.uintp(0) if state is None else self._xp.ascontiguousarray(state) for state in (call.h, call.c)]
        arguments = (gates, Wh, b, *first, h, c, tanh_c, np.int32(T), np.int32(N), np.int32(H))
        self._launch("lstm_all_steps", (N, min(1024, 4 * H)), arguments, shared=5 * H * gates.itemsize)

    def _step_by_step(
        self, Wh: Array, b: Array, call: LSTMCall, gates: Array, h: Array, c: Array, tanh_c: Array
    ) -> None:
        T, N, H = tanh_c.shape
        skipped, sizes = _skipped(call), (np.int32(N), np.int32(H))
        for states, first in ((h, call.h), (c, call.c)):
            states[0] = 0 if first is None else first
        for t in range(T):
            from_h = self._matmul(h[t], Wh)  # (N, H) x (H, 4H) -> (N, 4H)
            arguments = (gates[t], from_h, b, c[t], c[t + 1], tanh_c[t], h[t + 1], *sizes)
            self._launch("lstm_cell", _grid(N * H), arguments)
            if skipped is not None:
                for states in (h, c):
                    self._xp.copyto(states[t + 1], states[t], where=skipped[t])

    def backward(
        self, call: LSTMCall, kept: Kept, dhs: Array, dh: Array | None, dc: Array | None
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """As `OwnLSTM.vjp`."""
        xp, (x, gates, h, c, tanh_c) = self._xp, kept
        T, N, H = tanh_c.shape
        skipped, Wh_T = _skipped(call), call.Wh.T
        da = xp.empty_like(gates)
        d_h, d_c = (xp.zeros_like(c[0]) if last is None else last.copy() for last in (dh, dc))
        if dhs.strides[2] != dhs.itemsize:
            dhs = xp.ascontiguousarray(dhs)
        sizes = np.int32(N), np.int32(H), np.int64(dhs.strides[0] // dhs.itemsize)
        for t in reversed(range(T)):
            later_c = None if skipped is None else d_c.copy()
            arguments = (gates[t], c[t], tanh_c[t], dhs[:, t], d_h, d_c, da[t], *sizes)
            self._launch("lstm_cell_backward", _grid(N * H), arguments)
            if skipped is not None:
                xp.copyto(da[t], 0, where=skipped[t])
                xp.copyto(d_c, later_c, where=skipped[t])
            through_h = self._matmul(da[t], Wh_T)  # (N, 4H) x (4H, H) -> (N, H)
            if skipped is not None:
                xp.copyto(through_h, d_h, where=skipped[t])
            d_h = through_h
        flat = da.reshape(T * N, 4 * H)
        dx = self._matmul(flat, call.Wx.T).reshape(T, N, call.Wx.shape[0]).transpose(1, 0, 2)
        dWx = self._matmul(x.T, flat)  # (D, T N) x (T N, 4H) -> (D, 4H)
        dWh = self._matmul(h[:T].reshape(T * N, H).T, flat)  # (H, T N) x (T N, 4H) -> (H, 4H)
        return dx, dWx, dWh, xp.sum(flat, axis=0), d_h, d_c


def _grid(count: int) -> tuple[int, int]:
    """Blocks and threads for one thread a number."""
    return -(-count // BLOCK_THREADS), BLOCK_THREADS


def _skipped(call: LSTMCall) -> Array | None:
    """The steps that leave the states as they were, (T, N, 1)."""
    return None if call.mask is None else ~call.mask.T[:, :, None]
