"""Attention in CUDA kernels of our own: which kernel serves a call, and with what it is launched.

Short sequences go to ``kernels/attention_small.cu``, where a block holds an entry with all its scores; long ones in
float32 to ``kernels/attention_tiled.cu`` and ``attention_tiled_backward.cu``. Forward and backward are one launch each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ._attention import Array, AttentionCall

TILE = 64
"""Rows or keys of a tile: what the kernels are written for."""

FEW_ROWS = 16
"""Fewer rows leave most of a tile empty: decoding is better off with plain products."""

FAR = 2**28
"""Positions and lengths beyond it would overflow an int in the kernels; it also stands for an unbounded window."""

NULL = np.uintp(0)


class CudaAttention(NamedTuple):
    """The kernels, as `Backend.attention` and `Backend.attention_backward` want them.

    Attributes
    ----------
    xp : module
    launch : callable
        ``launch(name, grid, arguments, shared, macros)`` with a grid of (blocks, threads), bytes of shared memory, and
        macros to compile with.
    shared_limit : callable
        Bytes of shared memory that a block may ask for.
    """

    xp: Any
    launch: Callable[..., None]
    shared_limit: Callable[[], int]

    def forward(self, call: AttentionCall, out: Array, lse: Array) -> bool:
        B, R, _ = call.q.shape
        small = self._small(call, backward=False)
        tiled = 0 if small else self._tiled(call, backward=False)
        if not (small or tiled):
            return False
        arguments = (*self._operands(call), out, lse, *self._sight(call), *_sizes(call))
        if small:
            self.launch("attention_small", (B, 256), arguments, small, "")
        else:
            self.launch("attention_tiled", ((B, _tiles(R)), 128), arguments, tiled, f"#define WIDTH {_width(call)}\n")
        return True

    def reads_out(self, call: AttentionCall) -> bool:
        return not self._small(call, backward=True)

    def backward(
        self,
        call: AttentionCall,
        out: Array | None,
        lse: Array,
        dout: Array,
        dlse: Array | None,
        dq: Array,
        dk: Array,
        dv: Array | None,
    ) -> bool:
        B, R, _ = call.q.shape
        small = self._small(call, backward=True)
        tiled = 0 if small else self._tiled(call, backward=True)
        if not (small or tiled):
            return False
        if dout.strides[-1] != dout.itemsize:
            dout = self.xp.ascontiguousarray(dout)
        gaps = (np.int64(gap // dout.itemsize) for gap in dout.strides[:2])
        outgoing = (lse, dout, NULL if dlse is None else self._dense(dlse), dq, dk, NULL if dv is None else dv)
        after = (*self._sight(call), *_sizes(call), *gaps)
        operands = self._operands(call)
        if small:
            self.launch("attention_small_backward", (B, 256), (*operands, *outgoing, *after), small, "")
        else:
            grid = (B, _tiles(call.k.shape[1]) + _tiles(R)), 128
            arguments = (*operands, out, *outgoing, *after)
            self.launch("attention_tiled_backward", grid, arguments, tiled, f"#define WIDTH {_width(call)}\n")
        return True

    def _small(self, call: AttentionCall, backward: bool) -> int:
        """Bytes of shared memory that the small kernel needs for a call; 0 where it cannot serve it."""
        (_, R, D), (_, T_k, D_v) = call.q.shape, call.v.shape
        D, D_v = _padded(D, 4), _padded(D_v, 4)
        values = (R + T_k) * D + (0 if call.v is call.k else T_k * D_v) + R * T_k
        if backward:
            values += R * D_v + R * T_k
        size = int(values * call.q.itemsize + R + T_k)
        return size if _served(call) and size <= self.shared_limit() else 0

    def _tiled(self, call: AttentionCall, backward: bool) -> int:
        """The same for the kernels that work in tiles."""
        R, T_k, width = call.q.shape[1], call.k.shape[1], _width(call)
        size = TILE * ((6 if backward else 3) * (width + 4) * 4 + (8 if backward else 0) + 10)
        fits = width <= 128 and size <= self.shared_limit() and _tiles(R) + _tiles(T_k) < 2**16
        return size if _served(call) and call.q.dtype.char == "f" and R >= FEW_ROWS and fits else 0

    def _operands(self, call: AttentionCall) -> tuple[Array, Array, Array]:
        k = self._dense(call.k)
        return self._dense(call.q), k, k if call.v is call.k else self._dense(call.v)

    def _dense(self, array: Array) -> Array:
        return array if array.flags.c_contiguous else self.xp.ascontiguousarray(array)

    def _sight(self, call: AttentionCall) -> tuple[Any, ...]:
        """What the rows of an entry see, as the kernels are told."""
        mask, start, lengths = call.mask, call.start, call.lengths
        shape, strides = ((1, 1, 1), (0, 0, 0)) if mask is None else (mask.shape, mask.strides)
        by_entry, by_row, by_key = (
            np.int64(0 if length == 1 else stride) for length, stride in zip(shape, strides, strict=True)
        )
        return (
            NULL if mask is None else mask,
            NULL if isinstance(start, int) else self.xp.asarray(start.astype(np.int32)),
            NULL if lengths is None else self.xp.asarray(lengths.astype(np.int32)),
            np.int32(call.T_q),
            np.int32(call.q.shape[1]),
            np.int32(call.k.shape[1]),
            np.int32(start if isinstance(start, int) else 0),
            np.int32(FAR if call.left is None else min(call.left, FAR)),
            np.int32(FAR if call.right is None else min(call.right, FAR)),
            by_entry,
            by_row,
            by_key,
            np.int32(shape[1]),
        )


def _served(call: AttentionCall) -> bool:
    """Whether any kernel can serve a call, as far as dtypes and numbers go."""
    far = max(call.q.shape[1], call.k.shape[1], int(np.max(np.abs(call.start))))
    return call.q.dtype.char in "fd" and far <= FAR


def _sizes(call: AttentionCall) -> tuple[Any, ...]:
    return np.int32(call.q.shape[-1]), np.int32(call.v.shape[-1]), call.q.dtype.type(call.scale)


def _width(call: AttentionCall) -> int:
    """What rows are padded to in tiles."""
    return _padded(max(call.q.shape[-1], call.v.shape[-1]), 64)


def _tiles(length: int) -> int:
    return -(-length // TILE)


def _padded(width: int, to: int) -> int:
    return -(-width // to) * to
