"""The LSTM on CUDA: all steps in one launch where the device holds its blocks at once, else two for each step."""

from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from .._base import Array
from .._lstm import LSTMCall
from .compiled import Kernels
from .lstm_grid import BLOCK_THREADS, Grid, grid_for

MOST_NUMBERS = 2**31
"""Numbers of an array that a kernel's 32-bit indices do not reach."""

LEAST_CAPABILITY = 70
"""The lowest compute capability, as 70 for 7.0, on which a thread may wait for one of another block."""


class Kept(NamedTuple):
    """What `CudaLSTM.backward` reads again."""

    rows: Array  # (N, T, H + D + 1, and zeros up to a multiple of 4): the state before each step, the input, and 1
    gates: Array  # (N, T, 4H): f, g, i, o after their activations
    c: Array  # (N, T, H), the cells before each step


class Way(NamedTuple):
    """How the steps of a call are launched."""

    grid: Grid | None
    """None: step by step."""
    launch: Callable[..., None]


KINDS = {
    "lstm_steps": "PPPPPPPPPPPPPiiiiii",
    "lstm_steps_backward": "PPPPPPPPPPPPiiiiqq",
    "lstm_cell": "PPPPPPPPPPiiiiii",
    "lstm_cell_backward": "PPPPPPPPPiiiiqq",
}
"""Arguments of the kernels, as in `compiled.KINDS`."""


class CudaLSTM:
    """An LSTM by the kernels of ``kernels/lstm.cu``.

    Parameters
    ----------
    xp : module
        CuPy.
    matmul : callable
        `CupyBackend.matmul`.
    kernels : Kernels
    """

    def __init__(self, xp: Any, matmul: Callable[..., Array], kernels: Kernels) -> None:
        self._xp, self._matmul, self._kernels = xp, matmul, kernels
        self._ways: dict[tuple[int, int, bool, bool, str, int], Way] = {}
        self._counts: dict[tuple[int, int, int], Array] = {}

    def forward(self, call: LSTMCall) -> tuple[Array, Array, Array, Kept] | None:
        """hs, h and c as in `OwnLSTM`, and what `backward` reads.

        None for what the kernels cannot index, and for what they are not compiled for.
        """
        xp, (N, T, D), H = self._xp, call.x.shape, call.Wh.shape[0]
        dtype = call.x.dtype
        if 0 in (N, T, H) or N * 4 * H >= MOST_NUMBERS or H * 4 * H >= MOST_NUMBERS or dtype.char not in "fd":
            return None
        x = xp.ascontiguousarray(call.x).reshape(N * T, D)
        gates = self._matmul(x, call.Wx).reshape(N, T, 4 * H)  # (N T, D) x (D, 4H) -> (N T, 4H)
        width = -(-(H + D + 1) // 4) * 4
        hs, c, rows = (xp.empty((N, T, size), dtype) for size in (H, H, width))
        h, last_c = (xp.empty((N, H), dtype) for _ in range(2))
        Wh, b = xp.ascontiguousarray(call.Wh), xp.ascontiguousarray(call.b)
        mask = None if call.mask is None else xp.ascontiguousarray(call.mask)
        kept = [array.data.ptr for array in (x, hs, rows, c, h, last_c)]
        way = self._way(N, H, False, T > 1, dtype)
        if way.grid is None:
            for state, first in ((h, call.h), (last_c, call.c)):
                state[...] = 0 if first is None else first
            for t in range(T):
                from_h = self._matmul(h, Wh)  # (N, H) x (H, 4H) -> (N, 4H)
                way.launch(gates.data.ptr, from_h.data.ptr, b.data.ptr, _at(mask), *kept, t, N, T, H, D, width)
        else:
            first = [self._aligned(state) for state in (call.h, call.c)]
            read = [_at(array) for array in (gates, Wh, b, *first, mask)]
            way.launch(*read, *kept, self._zero_counts(), N, T, H, D, width, way.grid.entries)
        return hs, h, last_c, Kept(rows, gates, c)

    def backward(
        self, call: LSTMCall, kept: Kept, dhs: Array, dh: Array | None, dc: Array | None, out: Array | None
    ) -> tuple[Array, Array, Array, Array]:
        """As `OwnLSTM.vjp`."""
        xp, (rows, gates, c), (N, T, H) = self._xp, kept, kept.c.shape
        D, Wh = call.Wx.shape[0], xp.ascontiguousarray(call.Wh)
        da = xp.empty(gates.shape, gates.dtype)
        if dhs.strides[2] != dhs.itemsize:
            dhs = xp.ascontiguousarray(dhs)
        mask = None if call.mask is None else xp.ascontiguousarray(call.mask)
        steps = [stride // dhs.itemsize for stride in dhs.strides[:2]]
        way = self._way(N, H, True, True, c.dtype)
        if way.grid is None:
            d_h, d_c = (xp.zeros_like(c[:, 0]) if last is None else xp.array(last, order="C") for last in (dh, dc))
            through, da_t = d_h, xp.empty((N, 4 * H), c.dtype)
            for t in range(T - 1, -2, -1):
                arrays = [_at(array) for array in (gates, c, dhs, mask, through, d_h, d_c, da, da_t)]
                way.launch(*arrays, t, N, T, H, *steps)
                if t >= 0:
                    through = self._matmul(da_t, Wh.T)  # (N, 4H) x (4H, H) -> (N, H)
        else:
            d_h, d_c = (xp.empty((N, H), c.dtype) for _ in range(2))
            last = [None if d is None else xp.ascontiguousarray(d) for d in (dh, dc)]
            through = xp.empty(way.grid.handed, c.dtype)
            arrays = [_at(array) for array in (gates, Wh, c, dhs, *last, mask, da, d_h, d_c, through)]
            way.launch(*arrays, self._zero_counts(), N, T, H, way.grid.entries, *steps)
        flat = da.reshape(N * T, 4 * H)
        dx = self._matmul(flat, call.Wx.T).reshape(N, T, D)  # (N T, 4H) x (4H, D) -> (N T, D)
        read = rows.reshape(N * T, -1)[:, : H + D + 1]
        dW = self._matmul(read.T, flat, out=out)  # (H + D + 1, N T) x (N T, 4H), all gradients at once
        return dx, dW, d_h, d_c

    def _way(self, N: int, H: int, backward: bool, waits: bool, dtype: Any) -> Way:
        """All steps in one launch where the device can hold blocks that wait for each other, else step by step."""
        kernels, device = self._kernels, self._xp.cuda.runtime.getDevice()
        key = (N, H, backward, waits, dtype.char, device)
        if key not in self._ways:
            name = "lstm_steps_backward" if backward else "lstm_steps"
            count, capability, together = kernels.device_limits()
            grid = None
            if not waits or (together and capability >= LEAST_CAPABILITY):
                grid = grid_for(N, H, dtype.itemsize, backward, count, kernels.shared_limit(), waits)
            if grid is not None and waits:
                held = count * kernels.blocks_at_once(name, dtype.char, BLOCK_THREADS, grid.shared, grid.macros)
                grid = grid if grid.blocks <= held else None
            if grid is None:
                name = "lstm_cell_backward" if backward else "lstm_cell"
                launch = kernels.ready(name, dtype.char, KINDS[name], (-(-N * H // BLOCK_THREADS), BLOCK_THREADS))
            else:
                blocks = (grid.slices, grid.groups), BLOCK_THREADS
                launch = kernels.ready(name, dtype.char, KINDS[name], blocks, grid.shared, grid.macros, together=waits)
            self._ways[key] = Way(grid, launch)
        return self._ways[key]

    def _zero_counts(self) -> int:
        """The address of counts of blocks that have come, one for each group: 0 before a kernel and after it.

        Kernels that may run at the same time have others: those of another stream, also where each thread has its own.
        """
        cuda = self._xp.cuda
        key = cuda.runtime.getDevice(), cuda.get_current_stream().ptr, get_ident()
        if key not in self._counts:
            self._counts[key] = self._xp.zeros(self._kernels.device_limits()[0], np.uint32)
        return int(self._counts[key].data.ptr)

    def _aligned(self, state: Array | None) -> Array | None:
        """A state without gaps that begins where 16 bytes can be read at once."""
        if state is None:
            return None
        state = self._xp.ascontiguousarray(state)
        return state if state.data.ptr % 16 == 0 else state.copy()


def _at(array: Array | None) -> int:
    """The address of an array; 0 for None."""
    return 0 if array is None else array.data.ptr
