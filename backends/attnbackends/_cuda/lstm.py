"""The LSTM on CUDA: all steps in one launch where the device holds its blocks at once, else two for each step."""

from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from .._base import Array
from .._lstm import LSTMCall
from .compiled import Kernels

MOST_NUMBERS = 2**31
"""Numbers of an array that a kernel's 32-bit indices do not reach."""

BLOCK_THREADS = 256
"""Threads of a block, in the kernels of all steps and in those that have one for each number of a state."""

UNITS = 8
"""Hidden units of a block of the kernels of all steps: 32 columns of Wh in shared memory."""

ROWS = (32, 24, 16, 8)
"""Entries of the batch that such a block may take at a time."""

SYNC_ROWS = 8
"""What the barriers around a tile of rows take, in rows of a product: counted, not measured (512 cycles at H = 256)."""

MOST_HANDED = 2**25
"""Bytes that blocks hand over to each other in backward, two steps' worth: they should stay in the cache of the device,
which has 50 MB on an H100. Above that a step takes a product."""

LEAST_CAPABILITY = 70
"""Of devices on which a thread may wait for one of another block."""


class Kept(NamedTuple):
    """What `CudaLSTM.backward` reads again."""

    rows: Array  # (N, T, H + D + 1, and zeros up to a multiple of 4): the state before each step, the input, and 1
    gates: Array  # (N, T, 4H): f, g, i, o after their activations
    c: Array  # (N, T, H), the cells before each step


class Grid(NamedTuple):
    """How the kernels of all steps are launched."""

    slices: int  # blocks along the hidden units
    groups: int  # of entries
    entries: int  # of a group
    rows: int  # entries at a time
    shared: int  # bytes for a block

    @property
    def blocks(self) -> int:
        return self.slices * self.groups

    @property
    def tiles(self) -> int:
        """Of a group."""
        return -(-self.entries // self.rows)

    @property
    def handed(self) -> int:
        """Numbers that backward's blocks hand over to each other, two steps' worth."""
        return 2 * self.groups * self.tiles * self.slices**2 * self.rows * UNITS

    @property
    def macros(self) -> str:
        return f"#define ROWS {self.rows}\n"


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
        self._grids: dict[tuple[str, int, int, bool, str, int], Grid | None] = {}
        self._counts: dict[tuple[int, int, int], Array] = {}

    def forward(self, call: LSTMCall) -> tuple[Array, Array, Array, Kept] | None:
        """hs, h and c as in `OwnLSTM`, and what `backward` reads.

        None for what the kernels cannot index, and for what they are not compiled for.
        """
        xp, (N, T, D), H = self._xp, call.x.shape, call.Wh.shape[0]
        dtype = call.x.dtype
        if 0 in (N, T, H) or N * 4 * H >= MOST_NUMBERS or H * 4 * H >= MOST_NUMBERS or dtype.char not in "fd":
            return None
        x = call.x.reshape(N * T, D)
        gates = self._matmul(x, call.Wx).reshape(N, T, 4 * H)  # (N T, D) x (D, 4H) -> (N T, 4H)
        width = -(-(H + D + 1) // 4) * 4
        hs, c, rows = (xp.empty((N, T, size), dtype) for size in (H, H, width))
        h, last_c = (xp.empty((N, H), dtype) for _ in range(2))
        Wh, b = xp.ascontiguousarray(call.Wh), xp.ascontiguousarray(call.b)
        mask = _or_null(None if call.mask is None else xp.ascontiguousarray(call.mask))
        kept, sizes = (x, hs, rows, c, h, last_c), tuple(map(np.int32, (N, T, H, D, width)))
        grid = self._grid("lstm_steps", N, H, T > 1, dtype)
        if grid is None:
            for state, first in ((h, call.h), (last_c, call.c)):
                state[...] = 0 if first is None else first
            for t in range(T):
                from_h = self._matmul(h, Wh)  # (N, H) x (H, 4H) -> (N, 4H)
                self._kernels.launch("lstm_cell", _threads(N * H), (gates, from_h, b, mask, *kept, np.int32(t), *sizes))
        else:
            first = (_or_null(self._aligned(call.h)), _or_null(self._aligned(call.c)))
            arguments = (gates, Wh, b, *first, mask, *kept, self._zero_counts(), *sizes, np.int32(grid.entries))
            self._launch("lstm_steps", grid, arguments, T > 1)
        return hs, h, last_c, Kept(rows, gates, c)

    def backward(
        self, call: LSTMCall, kept: Kept, dhs: Array, dh: Array | None, dc: Array | None
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """As `OwnLSTM.vjp`."""
        xp, (rows, gates, c), (N, T, H) = self._xp, kept, kept.c.shape
        D, Wh = call.Wx.shape[0], xp.ascontiguousarray(call.Wh)
        da = xp.empty_like(gates)
        if dhs.strides[2] != dhs.itemsize:
            dhs = xp.ascontiguousarray(dhs)
        steps = [np.int64(stride // dhs.itemsize) for stride in dhs.strides[:2]]
        mask = _or_null(None if call.mask is None else xp.ascontiguousarray(call.mask))
        sizes = tuple(map(np.int32, (N, T, H)))
        grid = self._grid("lstm_steps_backward", N, H, True, c.dtype)
        if grid is None:
            d_h, d_c = (xp.zeros_like(c[:, 0]) if last is None else xp.array(last, order="C") for last in (dh, dc))
            through, da_t = d_h, xp.empty((N, 4 * H), c.dtype)
            for t in range(T - 1, -2, -1):
                arguments = (gates, c, dhs, mask, through, d_h, d_c, da, da_t, np.int32(t), *sizes, *steps)
                self._kernels.launch("lstm_cell_backward", _threads(N * H), arguments)
                if t >= 0:
                    through = self._matmul(da_t, Wh.T)  # (N, 4H) x (4H, H) -> (N, H)
        else:
            d_h, d_c = (xp.empty((N, H), c.dtype) for _ in range(2))
            last = [_or_null(None if d is None else xp.ascontiguousarray(d)) for d in (dh, dc)]
            arguments = (gates, Wh, c, dhs, *last, mask, da, d_h, d_c, xp.empty(grid.handed, c.dtype))
            arguments = (*arguments, self._zero_counts(), *sizes, np.int32(grid.entries), *steps)
            self._launch("lstm_steps_backward", grid, arguments, True)
        flat = da.reshape(N * T, 4 * H)
        dx = self._matmul(flat, call.Wx.T).reshape(N, T, D)  # (N T, 4H) x (4H, D) -> (N T, D)
        dW = self._matmul(rows.reshape(N * T, -1).T, flat)  # (H + D + 1, N T) x (N T, 4H), all gradients at once
        return dx, dW[H : H + D], dW[:H], dW[H + D], d_h, d_c

    # -- all steps in one launch

    def _grid(self, name: str, N: int, H: int, waits: bool, dtype: Any) -> Grid | None:
        """How a kernel of all steps is launched; None where the device cannot hold blocks that wait for others."""
        kernels, device = self._kernels, self._xp.cuda.runtime.getDevice()
        key = (name, N, H, waits, dtype.char, device)
        if key not in self._grids:
            count, capability, together = kernels.device_limits()
            grid = grid_for(N, H, dtype.itemsize, "backward" in name, count, kernels.shared_limit(), waits)
            if grid is not None and waits:
                held = count * kernels.blocks_at_once(name, dtype.char, BLOCK_THREADS, grid.shared, grid.macros)
                if not together or capability < LEAST_CAPABILITY or grid.blocks > held:
                    grid = None
            self._grids[key] = grid
        return self._grids[key]

    def _launch(self, name: str, grid: Grid, arguments: tuple[Any, ...], waits: bool) -> None:
        blocks = (grid.slices, grid.groups), BLOCK_THREADS
        self._kernels.launch(name, blocks, arguments, shared=grid.shared, macros=grid.macros, together=waits)

    def _zero_counts(self) -> Array:
        """Counts of blocks that have come, one for each group: 0 before a kernel and after it.

        Kernels that may run at the same time have others: those of another stream, also where each thread has its own.
        """
        cuda = self._xp.cuda
        key = cuda.runtime.getDevice(), cuda.get_current_stream().ptr, get_ident()
        if key not in self._counts:
            self._counts[key] = self._xp.zeros(self._kernels.device_limits()[0], np.uint32)
        return self._counts[key]

    def _aligned(self, state: Array | None) -> Array | None:
        """A state without gaps that begins where 16 bytes can be read at once."""
        if state is None:
            return None
        state = self._xp.ascontiguousarray(state)
        return state if state.data.ptr % 16 == 0 else state.copy()


def grid_for(
    N: int, H: int, itemsize: int, backward: bool, multiprocessors: int, shared_limit: int, waits: bool
) -> Grid | None:
    """The grid of a kernel of all steps in which a step takes least: at most one block on each multiprocessor.

    Parameters
    ----------
    N, H : int
        Entries and hidden units.
    itemsize : int
        Bytes of a number.
    backward : bool
    multiprocessors, shared_limit : int
        Of the device; bytes for a block.
    waits : bool
        Whether blocks wait for each other, and must all be on the device at once.
    """
    slices = -(-H // UNITS)
    most = multiprocessors // slices if waits else max(1, multiprocessors // slices)
    found = []
    for rows in ROWS:
        shared = itemsize * (_backward_numbers(H, rows) if backward else _forward_numbers(H, rows))
        if most == 0 or shared > shared_limit:
            continue
        entries = -(-N // min(most, -(-N // rows)))
        grid = Grid(slices, -(-N // entries), entries, rows, shared)
        if not backward or grid.handed * itemsize <= MOST_HANDED:
            found.append(grid)
    return min(found, key=lambda grid: grid.tiles * (grid.rows + SYNC_ROWS), default=None)


def _forward_numbers(H: int, rows: int) -> int:
    """Numbers in shared memory: weights, states, and sums in parts."""
    depth = -(-H // 16) * 16
    return depth * 4 * UNITS + rows * (depth + 4) + BLOCK_THREADS // (8 * UNITS) * rows * UNITS * 4


def _backward_numbers(H: int, rows: int) -> int:
    """Numbers in shared memory: weights and gradients of the gates."""
    return -(-H // UNITS) * UNITS * 4 * UNITS + rows * (4 * UNITS + 4)


def _threads(count: int) -> tuple[int, int]:
    """Blocks and threads for one thread a number."""
    return -(-count // BLOCK_THREADS), BLOCK_THREADS


def _or_null(array: Array | None) -> Any:
    """An array as an argument of a kernel, which is given a null pointer for None."""
    return np.uintp(0) if array is None else array
