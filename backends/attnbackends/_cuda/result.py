"""What attention on CUDA leaves for its backward, whichever way served the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .._attention import Array, OwnAttention
from .._registry import get_backend
from .call import CudaCall

ALIGNMENT = 256
"""Bytes between what shares an allocation, as CUDA aligns allocations themselves."""


def room_of(size: int) -> int:
    """Bytes that what has `size` takes in an allocation that others share."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Way(Protocol):
    """A way of serving calls."""

    xp: Any

    def plan(self, call: CudaCall) -> Any: ...
    def lse(self, result: CudaResult) -> Array: ...
    def backward(
        self, result: CudaResult, dout: Array, dlse: Array | None, dsinks: Array | None
    ) -> tuple[Array, Array, Array | None] | None: ...


class CudaResult(OwnAttention):
    """The result of a way.

    Parameters
    ----------
    way : Way
    plan : Plan or CudnnPlan
        Of the call, for the way.
    call : CudaCall
        With operands as the way reads them: backward needs no further copies.
    sight : tuple of arrays or None
        What says who sees whom, on the device.
    out : array (B, R, D_v)
        The caller's to write to.
    room : memory
        One allocation for all that backward needs beside that: to make arrays of its parts would take longer than to
        launch what reads them.
    """

    def __init__(
        self, way: Way, plan: Any, call: CudaCall, sight: tuple[Array | None, ...], out: Array, room: Any
    ) -> None:
        self._way, self.plan, self.call, self.sight, self.out, self.room = way, plan, call, sight, out, room

    @property
    def lse(self) -> Array:
        return self._way.lse(self)

    def backward(
        self, dout: Array, dlse: Array | None, dsinks: Array | None = None
    ) -> tuple[Array, Array, Array | None] | None:
        return self._way.backward(self, dout, dlse, dsinks)

    def again(self) -> Callable[[Array, Array, Array | None], OwnAttention | None] | None:
        """As `OwnAttention.again`, for a call with neither options nor positions."""
        call = self.call
        if call.options or call.may_hide or not isinstance(call.start, int):
            return None
        key, rest, serve = call.key, call[3:], get_backend("cupy")._serve  # type: ignore[attr-defined]
        v_strides = None if call.keys_are_values else call.v.strides
        device, strides = call.q.data.device_id, (call.q.strides, call.k.strides, v_strides)

        def again(q: Array, k: Array, v: Array | None) -> OwnAttention | None:
            if q.data.device_id != device or strides != (q.strides, k.strides, None if v is None else v.strides):
                return None
            return serve(CudaCall._make((q, k, k if v is None else v, *rest)), key)

        return again

    def __getstate__(self) -> tuple[Any, ...]:
        """What can be copied: arrays, not the plan."""
        room = self._way.xp.ndarray((self.room.mem.size,), dtype=np.uint8, memptr=self.room)
        return self._way, self.call, self.sight, self.out, room

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._way, self.call, self.sight, self.out, room = state
        self.plan, self.room = self._way.plan(self.call), room.data
        if self.plan.room > room.size:  # unpickled on a device where another kernel has what follows
            self.plan = None
