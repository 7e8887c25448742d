"""Attention in CUDA kernels of our own: which kernel serves a call, and with what it is launched.

Short sequences go to ``kernels/attention_small.cu``, where a block holds an entry with all its scores; long ones in
float32 to ``kernels/attention_tiled.cu`` and ``attention_tiled_backward.cu``. Forward and backward are one launch each.
A kernel more is one more class, here or in a file of its own, and in `KERNELS` of ``plans.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .call import CudaCall
from .compiled import Kernels
from .tiles import Tile, tile_for

FEWEST_ROWS = 16
"""Rows of queries that are worth a tile: fewer leave most of it empty, and plain products decode faster."""

UNBOUNDED = 2**30
"""The side of a window that has no end, as ``kernels/attention.cuh`` knows it: from no position to within reach."""

VISIBILITY = "PPP iiiiii qqqiii".replace(" ", "")
"""Kinds of `VISIBILITY_PARAMETERS` in ``kernels/attention.cuh``."""

SIZES = "iir"
"""Kinds of D, D_v and the scale, which follow."""

FURTHER = "PPqqq qqqiii rfr".replace(" ", "")
"""Kinds of `FURTHER_PARAMETERS`, which calls with options end with: first what each call has of its own."""

BACKWARD = f"P{FURTHER}"
"""The same of backward, which are told first where the gradient of the sinks is to be put."""

Addresses = tuple[int, ...]


class Forward(Protocol):
    """Launches the forward pass of a call whose plan it belongs to; 0 is the address of what there is none of."""

    def __call__(
        self, operands: Addresses, sight: Addresses, further: Addresses, out: int, kept: int, stats: int
    ) -> None:
        """Addresses of q, k and v, of mask, starts and lengths, and of what is written.

        `further` is empty for a call without options, else the addresses of bias and sinks, and three integers: where
        dropout draws (`CudaCall.draws`).

        `kept` (B, R, D_v) is to become what `out` becomes; `stats` (2, B, R) are as `CudaResult` has them.
        """


class Backward(Protocol):
    """Launches the backward pass of a call."""

    def __call__(self, arrays: Addresses, sight: Addresses, gaps: tuple[int, int], further: Addresses) -> None:
        """Addresses, 0 for what there is none of, and numbers, as all kernels of backward take them.

        Parameters
        ----------
        arrays : tuple of int
            q, k and v; what became of `kept`, for a kernel that reads the output; stats, dout, dlse, dq, dk and dv.
        sight : tuple of int
            As `Forward`.
        gaps : (int, int)
            The strides of `dout` along entries and rows, in elements.
        further : tuple of int
            As `Forward`; unless it is empty, it begins with the address of the gradient of the sinks (B, R).
        """


def backward_of(call: CudaCall, launch: Callable[..., None]) -> Backward:
    """The backward pass by a kernel that is ready: the numbers of a call are put between its addresses."""
    fixed, options = numbers(call), further_numbers(call)

    def run(arrays: Addresses, sight: Addresses, gaps: tuple[int, int], further: Addresses) -> None:
        launch(*arrays, *sight, *fixed, *gaps, *further, *options)

    return run


class SmallKernel:
    """A block for each entry, which holds all of it in shared memory."""

    reads_out = False
    """Whether backward reads the output of forward."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def forward(self, call: CudaCall) -> Forward | None:
        """What launches the forward pass of a call; None where the kernel cannot serve it."""
        size = self._bytes(call, backward=False)
        if not size:
            return None
        (B, R, _), kinds = call.q.shape, f"PPPPP{VISIBILITY}{SIZES}{FURTHER if call.options else ''}"
        launch = self._kernels.ready("attention_small", call.q.dtype.char, kinds, (B, 256), size, option_macros(call))
        fixed, options, out_bytes = numbers(call), further_numbers(call), B * R * call.v.shape[2] * call.q.itemsize
        runtime, stream = self._kernels.xp.cuda.runtime, self._kernels.xp.cuda.get_current_stream

        def run(operands: Addresses, sight: Addresses, further: Addresses, out: int, kept: int, stats: int) -> None:
            launch(*operands, out, stats, *sight, *fixed, *further, *options)
            if kept:  # backward is not for this kernel, which happens for few shapes
                runtime.memcpyAsync(kept, out, out_bytes, runtime.memcpyDeviceToDevice, stream().ptr)

        return run

    def backward(self, call: CudaCall) -> Backward | None:
        """What launches the backward pass; None where the kernel cannot serve it."""
        size = self._bytes(call, backward=True)
        if not size:
            return None
        kinds = f"PPPPPPPPP{VISIBILITY}{SIZES}qq{BACKWARD if call.options else ''}"
        name, grid = "attention_small_backward", (call.q.shape[0], 256)
        macros = option_macros(call)
        return backward_of(call, self._kernels.ready(name, call.q.dtype.char, kinds, grid, size, macros))

    def _bytes(self, call: CudaCall, backward: bool) -> int:
        """Bytes of shared memory that a block needs for a call; 0 where that is too much or the call is not for it."""
        (_, R, D), (_, T_k, D_v) = call.q.shape, call.v.shape
        D, D_v = padded(D, 4), padded(D_v, 4)
        values = (R + T_k) * D + (0 if call.v is call.k else T_k * D_v) + R * T_k
        if backward:
            values += R * D_v + R * T_k * (2 if call.softcap is not None else 1)
        draws = R * -(-T_k // 8) if call.dropout else 0
        size = int(values * call.q.itemsize + R + T_k + draws)
        served = call.q.dtype.char in "fd" and call.is_near
        return size if served and size <= self._kernels.shared_limit() else 0


class TiledKernel:
    """Tiles of queries and of keys, in float32: memory grows with T alone."""

    reads_out = True

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def forward(self, call: CudaCall) -> Forward | None:
        tile = self.tile(call, backward=False)
        if tile is None:
            return None
        B, R, _ = call.q.shape
        kinds = f"PPPPPP{VISIBILITY}{SIZES}{FURTHER if call.options else ''}"
        grid = (B, tile.blocks(R)), tile.threads
        launch = self._kernels.ready("attention_tiled", "f", kinds, grid, tile.bytes(backward=False), tile.macros)
        fixed, options = numbers(call), further_numbers(call)

        def run(operands: Addresses, sight: Addresses, further: Addresses, out: int, kept: int, stats: int) -> None:
            launch(*operands, out, kept, stats, *sight, *fixed, *further, *options)

        return run

    def backward(self, call: CudaCall) -> Backward | None:
        tile = self.tile(call, backward=True)
        if tile is None:
            return None
        B, R, _ = call.q.shape
        kinds = f"PPPPPPPPPP{VISIBILITY}{SIZES}qq{BACKWARD if call.options else ''}"
        grid = (B, tile.blocks(R, call.k.shape[1], values=call.v is not call.k)), tile.threads
        name, size = "attention_tiled_backward", tile.bytes(backward=True)
        return backward_of(call, self._kernels.ready(name, "f", kinds, grid, size, tile.macros))

    def tile(self, call: CudaCall, backward: bool) -> Tile | None:
        """The tile for a call; None where the kernels that work in tiles cannot serve it."""
        R, T_k = call.q.shape[1], call.k.shape[1]
        few = R < FEWEST_ROWS and not backward  # whose forward is another kernel's
        if call.q.dtype.char != "f" or few or not call.is_near:
            return None
        tile = tile_for(max(call.q.shape[2], call.v.shape[2]), backward, self._kernels.shared_limit(), call.options)
        return tile if tile is not None and tile.blocks(R, T_k, values=True) < 2**16 else None


def numbers(call: CudaCall) -> tuple[float, ...]:
    """What the kernels are told beside addresses: the numbers of `VISIBILITY` and `SIZES`."""
    mask, start = call.mask, call.start
    shape, strides = ((1, 1, 1), (0, 0, 0)) if mask is None else (mask.shape, mask.strides)
    return (
        call.T_q,
        call.q.shape[1],
        call.k.shape[1],
        start if isinstance(start, int) else 0,
        UNBOUNDED if call.left is None else min(call.left, UNBOUNDED),
        UNBOUNDED if call.right is None else min(call.right, UNBOUNDED),
        *(0 if length == 1 else stride for length, stride in zip(shape, strides, strict=True)),
        shape[1],
        call.mask_each,
        shape[0],
        call.q.shape[2],
        call.v.shape[2],
        call.scale,
    )


def further_numbers(call: CudaCall) -> tuple[float, ...]:
    """What ends the arguments of a call with options: the last nine of `FURTHER`."""
    if not call.options:
        return ()
    shape, strides = ((1, 1, 1), (0, 0, 0)) if call.bias is None else (call.bias.shape, call.bias.strides)
    gaps = (0 if length == 1 else stride // call.q.itemsize for length, stride in zip(shape, strides, strict=True))
    return *gaps, shape[1], call.bias_each, shape[0], call.softcap or 0.0, call.dropout, 1 / (1 - call.dropout)


def option_macros(call: CudaCall) -> str:
    """What compiles a kernel for the options of a call."""
    return f"#define OPTIONS {call.options}\n" if call.options else ""


def padded(width: int, to: int) -> int:
    return -(-width // to) * to
