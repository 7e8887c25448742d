"""Attention in CUDA kernels of our own: which kernel serves a call, and with what it is launched.

Short sequences go to ``kernels/attention_small.cu``, where a block holds an entry with all its scores; long ones in
float32 to ``kernels/attention_tiled.cu`` and ``attention_tiled_backward.cu``. Forward and backward are one launch each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._attention import Array, OwnAttention
from .call import CudaCall
from .tiles import Tile, tile_for

FEWEST_ROWS = 16
"""Rows of queries that are worth a tile: fewer leave most of it empty, and plain products decode faster."""

FARTHEST_POSITION = 2**28
"""Positions and lengths beyond it go elsewhere: the kernels add and subtract them as ints of 32 bits."""

UNBOUNDED = 2**30
"""The side of a window that has no end, as ``kernels/attention.cuh`` knows it: from no position to within reach."""

NULL = np.uintp(0)


class CudaAttention(NamedTuple):
    """The kernels, as `CupyBackend.attention` want them.

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

    def forward(self, call: CudaCall, out: Array, stats: Array, kept: Array | None) -> bool:
        B, R, _ = call.q.shape
        small = self._small(call, backward=False)
        tile = None if small else self._tile(call, backward=False)
        if not small and tile is None:
            return False
        operands, after = self._operands(call), (stats, *self._sight(call), *_sizes(call))
        if tile is None:
            self.launch("attention_small", (B, 256), (*operands, out, *after), small, "")
            if kept is not None:  # backward is not for the small kernel, which happens for few shapes
                kept[...] = out
        else:
            grid = (B, tile.blocks(R)), tile.threads
            arguments = (*operands, out, NULL if kept is None else kept, *after)
            self.launch("attention_tiled", grid, arguments, tile.bytes(backward=False), tile.macros)
        return True

    def reads_out(self, call: CudaCall) -> bool:
        return not self._small(call, backward=True)

    def backward(
        self,
        call: CudaCall,
        out: Array | None,
        stats: Array,
        dout: Array,
        dlse: Array | None,
        dq: Array,
        dk: Array,
        dv: Array | None,
    ) -> bool:
        B, R, _ = call.q.shape
        small = self._small(call, backward=True)
        tile = None if small else self._tile(call, backward=True)
        if not small and tile is None:
            return False
        if dout.strides[-1] != dout.itemsize:
            dout = self.xp.ascontiguousarray(dout)
        gaps = (np.int64(gap // dout.itemsize) for gap in dout.strides[:2])
        outgoing = (stats, dout, NULL if dlse is None else self._dense(dlse), dq, dk, NULL if dv is None else dv)
        after = (*self._sight(call), *_sizes(call), *gaps)
        operands = self._operands(call)
        if tile is None:
            self.launch("attention_small_backward", (B, 256), (*operands, *outgoing, *after), small, "")
        else:
            grid = (B, tile.blocks(R, call.k.shape[1], values=dv is not None)), tile.threads
            arguments = (*operands, out, *outgoing, *after)
            self.launch("attention_tiled_backward", grid, arguments, tile.bytes(backward=True), tile.macros)
        return True

    def _small(self, call: CudaCall, backward: bool) -> int:
        """Bytes of shared memory that the small kernel needs for a call; 0 where it cannot serve it."""
        (_, R, D), (_, T_k, D_v) = call.q.shape, call.v.shape
        D, D_v = _padded(D, 4), _padded(D_v, 4)
        values = (R + T_k) * D + (0 if call.v is call.k else T_k * D_v) + R * T_k
        if backward:
            values += R * D_v + R * T_k
        size = int(values * call.q.itemsize + R + T_k)
        return size if _served(call) and size <= self.shared_limit() else 0

    def _tile(self, call: CudaCall, backward: bool) -> Tile | None:
        """The tile for a call; None where the kernels that work in tiles cannot serve it."""
        R, T_k = call.q.shape[1], call.k.shape[1]
        if call.q.dtype.char != "f" or R < FEWEST_ROWS or not _served(call):
            return None
        tile = tile_for(max(call.q.shape[2], call.v.shape[2]), backward, self.shared_limit())
        return tile if tile is not None and tile.blocks(R, T_k, values=True) < 2**16 else None

    def _operands(self, call: CudaCall) -> tuple[Array, Array, Array]:
        k = self._dense(call.k)
        return self._dense(call.q), k, k if call.v is call.k else self._dense(call.v)

    def _dense(self, array: Array) -> Array:
        return array if array.flags.c_contiguous else self.xp.ascontiguousarray(array)

    def _sight(self, call: CudaCall) -> tuple[Any, ...]:
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
            np.int32(UNBOUNDED if call.left is None else min(call.left, UNBOUNDED)),
            np.int32(UNBOUNDED if call.right is None else min(call.right, UNBOUNDED)),
            by_entry,
            by_row,
            by_key,
            np.int32(shape[1]),
        )


def _served(call: CudaCall) -> bool:
    """Whether any kernel can serve a call, as far as dtypes and numbers go."""
    far = max(call.q.shape[1], call.k.shape[1], int(np.max(np.abs(call.start))))
    return call.q.dtype.char in "fd" and far <= FARTHEST_POSITION


def _sizes(call: CudaCall) -> tuple[Any, ...]:
    return np.int32(call.q.shape[-1]), np.int32(call.v.shape[-1]), call.q.dtype.type(call.scale)


def _padded(width: int, to: int) -> int:
    return -(-width // to) * to


class CudaResult(OwnAttention):
    """What `CupyBackend.attention` returns: the result of one way, whose backward follows.

    Parameters
    ----------
    backend : CupyBackend
    way : str
        The attribute of the backend that took the call, a `CudaAttention` or a `CudnnAttention`.
    call : CudaCall
    keys_are_values : bool
    out : array (B, R, D_v)
    stats : array (2, B, R, 1)
        Weights are ``exp(score - stats[0]) * stats[1]``.
    kept : array (B, R, D_v) or None
        The output as backward reads it: `out` is the caller's.
    """

    def __init__(
        self,
        backend: Any,
        way: str,
        call: CudaCall,
        keys_are_values: bool,
        out: Array,
        stats: Array,
        kept: Array | None,
    ) -> None:
        self._backend, self._way, self._call, self._keys_are_values = backend, way, call, keys_are_values
        self.out, self._stats, self._kept = out, stats, kept

    @property
    def lse(self) -> Array:
        (shift, inverse), xp = self._stats, self._backend.xp
        lse = shift - xp.log(inverse)
        xp.copyto(lse, -np.inf, where=inverse == 0)
        return lse

    def backward(self, dout: Array, dlse: Array | None) -> tuple[Array, Array, Array | None] | None:
        call, empty = self._call, self._backend.xp.empty_like
        dq, dk, dv = empty(call.q, order="C"), empty(call.k, order="C"), None
        if not self._keys_are_values:
            dv = empty(call.v, order="C")
        done = getattr(self._backend, self._way).backward(call, self._kept, self._stats, dout, dlse, dq, dk, dv)
        return (dq, dk, dv) if done else None
