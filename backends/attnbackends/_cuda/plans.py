"""Calls of attention that CUDA kernels serve: each kind of call has a plan, and a call launches what it says.

What a call is launched with depends on shapes, strides and options alone, so that it is worked out once. A call that
comes again finds its `Plan`, allocates its results, and gives their addresses to the kernel.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from .._attention import Array
from .._registry import get_backend
from .attention import FEWEST_ROWS, Addresses, Backward, Forward, SmallKernel, TiledKernel
from .call import CudaCall
from .compiled import Kernels
from .decode import DecodeKernel
from .recent import Recent
from .result import CudaResult, room_of

KERNELS = SmallKernel, DecodeKernel, TiledKernel
"""The first one that serves a call has it, forward and backward apart."""

PLANS = 256
"""Plans that are kept: more than the shapes of a training in buckets of length, at about 2 KB each."""

UPLOADS = 64
"""Arrays of positions and lengths that are kept on the device: one serves all layers of a step."""

LARGEST_UPLOAD = 4096
"""Bytes of the largest one that is kept."""

ROWS_OF_A_TILE = 64
"""Rows of a block of the tiled kernels. Where these are fewer blocks than the device has multiprocessors, some of those
have nothing to do, and products are faster: on an H200 at D = 64 in float32, forward and backward, microseconds of the
device by tiles and by products, 96 and 66 at (16, 256), 318 and 228 at (4, 1024), 356 and 307 at (8, 1024)."""

NARROW = 64
"""Size of a head up to which the tiled kernels do better than that on a device they fill. At D = 128 they take 169
microseconds and products 86 at (16, 256), 659 and 437 at (8, 1024); at D = 256 489 and 121 at (16, 256) (an H200)."""


class Plan(NamedTuple):
    """All of a call that does not depend on what its arrays hold or where they lie.

    Attributes
    ----------
    forward : Forward or None
        None where no kernel serves the call.
    backward : Backward or None
    dense : (bool, bool, bool)
        Whether q, k and v are contiguous, as the kernels read them.
    has_options : bool
        Whether the kernels are told what `FURTHER` says.
    out : tuple of int
        Shape of the output.
    kept_at, room : int
        Where the output as backward reads it begins in the memory that stats and it share, 0 where it is not kept,
        and the bytes of both.
    gives_way : bool
        Whether products serve it better where the weights may be kept (`WeightedAttention`).
    """

    forward: Forward | None
    backward: Backward | None
    dense: tuple[bool, bool, bool]
    has_options: bool
    out: tuple[int, int, int]
    kept_at: int
    room: int
    gives_way: bool


class CudaAttention:
    """The kernels, and the plans of calls that they have served.

    Parameters
    ----------
    kernels : Kernels
    """

    KERNELS: tuple[type[SmallKernel | DecodeKernel | TiledKernel], ...] = KERNELS

    def __init__(self, kernels: Kernels) -> None:
        self.xp = kernels.xp
        self._multiprocessors = kernels.multiprocessors
        self._kernels = [kernel(kernels) for kernel in self.KERNELS]
        self.plans: Recent[Plan] = Recent(PLANS)
        self._uploads: Recent[Array] = Recent(UPLOADS)

    def __reduce__(self) -> Any:
        """A copy, or what is unpickled, is the one of the backend."""
        return _of_backend, ()

    def attention(self, call: CudaCall, plan: Plan) -> CudaResult | None:
        """Forward; None where no kernel serves the call."""
        if plan.forward is None:
            return None
        if plan.dense != (True, True, True) or call.sinks is not None:
            call = self._dense(call, plan)
        xp = self.xp
        sight = self.sight(call)
        out, room = xp.ndarray(plan.out, call.q.dtype), xp.cuda.alloc(plan.room)
        kept = room.ptr + plan.kept_at if plan.kept_at else 0
        further = _further(call) if plan.has_options else ()
        plan.forward(_operands(call), addresses_of(sight), further, out.data.ptr, kept, room.ptr)
        return CudaResult(self, plan, call, sight, out, room)

    def backward(
        self, result: CudaResult, dout: Array, dlse: Array | None, dsinks: Array | None = None
    ) -> tuple[Array, Array, Array | None] | None:
        """As `CudaResult.backward`; the memory of `result` begins with stats (2, B, R), see `Forward`."""
        plan, call, room, xp = result.plan, result.call, result.room, self.xp
        if plan is None or plan.backward is None:  # weights may be made again and kept, all at once
            weighted = get_backend("cupy")._weighted  # type: ignore[attr-defined]
            again = None if weighted is None else weighted.attention(call, call.key)
            return None if again is None else again.backward(dout, dlse, dsinks)
        strides, itemsize, dtype = dout.strides, dout.itemsize, call.q.dtype
        if strides[2] != itemsize:
            dout = xp.ascontiguousarray(dout)
            strides = dout.strides
        dlse = None if dlse is None else xp.ascontiguousarray(dlse)
        dq, dk = xp.ndarray(call.q.shape, dtype), xp.ndarray(call.k.shape, dtype)
        dv = None if call.keys_are_values else xp.ndarray(call.v.shape, dtype)
        read = (room.ptr + plan.kept_at, room.ptr) if plan.kept_at else (room.ptr,)
        at_dlse, at_dv, at_dsinks = addresses_of((dlse, dv, dsinks))
        plan.backward(
            (*_operands(call), *read, dout.data.ptr, at_dlse, dq.data.ptr, dk.data.ptr, at_dv),
            addresses_of(result.sight),
            (strides[0] // itemsize, strides[1] // itemsize),
            (at_dsinks, *_further(call)) if plan.has_options else (),
        )
        return dq, dk, dv

    def plan(self, call: CudaCall, key: Hashable = None) -> Plan:
        """The plan of a call, whose key the caller may know already; made at the first one of its kind."""
        key = key or call.key
        return self.plans.get(key) or self.plans.put(key, self._new_plan(call))

    def lse(self, result: CudaResult) -> Array:
        """As `CudaResult.lse`."""
        return lse_of(self.xp, result)

    def _new_plan(self, call: CudaCall) -> Plan:
        forward = next((run for kernel in self._kernels if (run := kernel.forward(call))), None)
        backwards = ((kernel.backward(call), kernel.reads_out) for kernel in self._kernels)
        backward, reads_out = next((found for found in backwards if found[0]), (None, False))
        B, R, _ = call.q.shape
        out = B, R, call.v.shape[2]
        stats = room_of(2 * B * R * stats_dtype(call).itemsize)
        dense = bool(call.q.flags.c_contiguous), bool(call.k.flags.c_contiguous), bool(call.v.flags.c_contiguous)
        kept = B * R * out[2] * call.q.itemsize if reads_out else 0
        gives_way = call.q.dtype.char in "fd" and not (forward and (backward or R < FEWEST_ROWS))
        if forward and reads_out and R >= FEWEST_ROWS:
            few = self._multiprocessors() > B * -(-R // ROWS_OF_A_TILE)
            gives_way = few or max(call.q.shape[2], call.v.shape[2]) > NARROW
        has_options = call.options != 0
        return Plan(forward, backward, dense, has_options, out, stats if kept else 0, stats + kept, gives_way)

    def _dense(self, call: CudaCall, plan: Plan) -> CudaCall:
        dense = self.xp.ascontiguousarray
        q, k, v = call.q, call.k, call.v
        own_k = k if plan.dense[1] else dense(k)
        own_v = own_k if v is k else v if plan.dense[2] else dense(v)
        sinks = None if call.sinks is None else dense(call.sinks)
        return call._replace(q=q if plan.dense[0] else dense(q), k=own_k, v=own_v, sinks=sinks)

    def sight(self, call: CudaCall) -> tuple[Array | None, ...]:
        """The arrays that say what the rows of an entry see: mask, starts, lengths."""
        if call.mask is call.lengths is None and isinstance(call.start, int):
            return None, None, None
        starts = None if isinstance(call.start, int) else self._upload(call.by_entry(call.start))
        return call.mask, starts, None if call.lengths is None else self._upload(call.by_entry(call.lengths))

    def _upload(self, numbers: np.ndarray) -> Array:
        """The same numbers on the device; what another stream was given may not have arrived in time for this one."""
        if numbers.nbytes > LARGEST_UPLOAD:
            return self.xp.asarray(numbers)
        cuda = self.xp.cuda
        key = cuda.runtime.getDevice(), cuda.get_current_stream().ptr, numbers.tobytes()
        found = self._uploads.get(key)
        return self._uploads.put(key, self.xp.asarray(numbers)) if found is None else found


def _of_backend() -> CudaAttention:
    return get_backend("cupy")._attention_kernels  # type: ignore[attr-defined]


def stats_dtype(call: CudaCall) -> Any:
    return np.promote_types(call.q.dtype, np.float32)


def _operands(call: CudaCall) -> Addresses:
    return call.q.data.ptr, call.k.data.ptr, call.v.data.ptr


def _further(call: CudaCall) -> Addresses:
    """What a call with options has of its own: as `Forward` is told it."""
    return *addresses_of((call.bias, call.sinks)), *call.draws


def addresses_of(arrays: tuple[Array | None, ...]) -> Addresses:
    return tuple([0 if array is None else array.data.ptr for array in arrays])


def lse_of(xp: Any, result: CudaResult) -> Array:
    """The log-sum-exp of rows whose stats (2, B, R) the memory of a result begins with."""
    B, R, _ = result.call.q.shape
    shift, inverse = xp.ndarray((2, B, R, 1), dtype=stats_dtype(result.call), memptr=result.room)
    lse = shift - xp.log(inverse)
    xp.copyto(lse, -np.inf, where=inverse == 0)
    return lse
