"""Attention in half precision by cuDNN's fused kernels, through its frontend for Python (`import cudnn`).

cuDNN holds no scores in memory. It sees heads (B, H, T, D) with strides, so that nothing is copied but what has rows
that are not dense or not aligned. What it refuses is remembered with the reason, and goes to the next way.

Its one statistic of a row is the log-sum-exp in float32, whose rounding goes into every weight that backward makes: it
reaches that of a weight in float16 where scores pass 2**13 = 8,192, of one in bfloat16 from 2**16 on, and from about
2**24 on gradients may be several times too large where scores are equal. Only reading the scores would tell, and no
call waits for the device.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from .._base import Array
from .._registry import get_backend
from .call import CudaCall
from .recent import Recent
from .result import CudaResult, room_of

Q, K, V, OUT, STATS, DOUT, DQ, DK, DV = range(1, 10)
"""Names of the arrays within a graph."""

FORWARD, BACKWARD = {Q: "q", K: "k", V: "v"}, {Q: "q", K: "k", V: "v", OUT: "o", DOUT: "dO", STATS: "stats"}
"""What goes in, and what the frontend calls it."""

ALIGNED = 8
"""Numbers in 16 bytes: what head sizes and strides are multiples of."""

PLANS = 256
"""Plans that are kept, each with its graphs."""

GRADIENT_LAYOUTS = 8
"""Layouts of incoming gradients for which a plan keeps a graph."""

Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Band(NamedTuple):
    """Which keys a query sees, as cuDNN says it.

    Attributes
    ----------
    left : int or None
        Keys up to its position that it sees; cuDNN counts its own.
    right : int or None
        Keys after its position that it sees.
    at_end : bool
        Whether the last query stands at the last key; else the first stands at the first.
    """

    left: int | None
    right: int | None
    at_end: bool

    @classmethod
    def of(cls, call: CudaCall) -> Band | None:
        """The band of a call; None where cuDNN has none for it."""
        T_q, T_k = call.T_q, int(call.k.shape[1])
        if call.mask is not None or call.lengths is not None:
            return None
        if call.left is None and call.right is None:
            return cls(None, None, False)
        if not isinstance(call.start, int) or call.start not in (0, T_k - T_q):
            return None
        at_end = call.start != 0
        if T_q > T_k and (at_end or call.left is not None):
            return None
        return cls(None if call.left is None else call.left + 1, call.right, at_end)


class Description(NamedTuple):
    """All that a graph depends on: `layouts` are (name, (dims, strides in elements)), inputs first."""

    device: int
    dtype: str
    scale: float
    band: Band
    layouts: tuple[tuple[int, Layout], ...]

    @property
    def backward(self) -> bool:
        return any(name == DQ for name, _ in self.layouts)

    def __str__(self) -> str:
        dims = {name: dims for name, (dims, _) in self.layouts}
        direction = "backward" if self.backward else "forward"
        return f"{direction} in {self.dtype}, queries {dims[Q]}, keys {dims[K]}, {self.band}"


class Ready(NamedTuple):
    """A graph to be executed, with the bytes of its workspace; `graph` is None for one that cuDNN refused."""

    description: Description
    graph: Any
    workspace: int


class CudnnPlan:
    """All of a call that does not depend on what its arrays hold or where they lie.

    Attributes
    ----------
    band : Band
    forward : Ready or None
        None where cuDNN does not serve the call.
    fits : (bool, bool, bool)
        Whether cuDNN reads q, k and v as they lie.
    out : tuple of int
        Shape of the output.
    kept_at, room : int
        Bytes of the log-sum-exp, after which the output as backward reads it follows, and of both.
    backward : Recent
        By the layout of the incoming gradient: a Ready, and whether cuDNN reads the gradient as it lies.
    """

    def __init__(self, call: CudaCall, band: Band | None) -> None:
        B, R, _ = call.q.shape
        self.band, self.forward = band, None
        self.fits = _fits(call.q), _fits(call.k), _fits(call.v)
        self.out = B, R, int(call.v.shape[2])
        self.kept_at = room_of(4 * B * R)
        self.room = self.kept_at + B * R * self.out[2] * call.q.itemsize
        self.backward: Recent[tuple[Ready, bool]] = Recent(2 * GRADIENT_LAYOUTS)

    band: Band | None
    forward: Ready | None


class CudnnAttention:
    """Forward and backward through cuDNN's frontend.

    Parameters
    ----------
    cupy : module

    Raises
    ------
    ImportError
        Where the frontend is not installed, or finds no cuDNN.
    """

    def __init__(self, cupy: Any) -> None:
        import cudnn

        self.xp, self._cudnn = cupy, cudnn
        self.version = str(cudnn.__version__)
        self._refusals = (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError, NotImplementedError)
        self._handles: dict[tuple[int, int], Any] = {}
        self.plans: Recent[CudnnPlan] = Recent(PLANS)
        self.refused: dict[str, str] = {}
        """Calls that were refused, in words, and why."""

    def __reduce__(self) -> Any:
        """A copy, or what is unpickled, is the one of the backend."""
        return _of_backend, ()

    def attention(self, call: CudaCall, key: Hashable) -> CudaResult | None:
        """Forward of a call with its key; None where cuDNN does not serve it. The only statistic is the log-sum-exp."""
        q, k, v, xp = call.q, call.k, call.v, self.xp
        at = q.data.ptr, k.data.ptr, v.data.ptr
        aligned = key, at[0] % 16, at[1] % 16, at[2] % 16
        plan = self.plans.get(aligned) or self.plans.put(aligned, self._new_plan(call))
        if plan.forward is None:
            return None
        if plan.fits != (True, True, True):
            call = self._fitting(call, plan)
            at = call.q.data.ptr, call.k.data.ptr, call.v.data.ptr
        out, room = xp.ndarray(plan.out, q.dtype), xp.cuda.alloc(plan.room)
        results = {Q: at[0], K: at[1], V: at[2], OUT: out.data.ptr, STATS: room.ptr}
        if not self._execute(plan.forward, results):
            plan.forward = None
            return None
        runtime, stream = xp.cuda.runtime, xp.cuda.get_current_stream().ptr
        size = plan.room - plan.kept_at
        runtime.memcpyAsync(room.ptr + plan.kept_at, out.data.ptr, size, runtime.memcpyDeviceToDevice, stream)
        return CudaResult(self, plan, call, (), out, room)

    def lse(self, result: CudaResult) -> Array:
        """As `CudaResult.lse`."""
        B, R, _ = result.call.q.shape
        return self.xp.ndarray((B, R, 1), dtype=np.float32, memptr=result.room).copy()

    def backward(
        self, result: CudaResult, dout: Array, dlse: Array | None, dsinks: Array | None = None
    ) -> tuple[Array, Array, Array | None] | None:
        """As `CudaResult.backward`. Sums into the gradient of q come in any order: the last bits may differ.

        Calls with sinks are none that cuDNN serves.
        """
        plan, call, room, xp = result.plan, result.call, result.room, self.xp
        if plan is None or dlse is not None or call.T_q == call.k.shape[1] == 1:
            return None
        layout = dout.strides, dout.data.ptr % 16
        ready, fits = plan.backward.get(layout) or plan.backward.put(layout, self._ready_backward(plan, call, dout))
        if ready.graph is None:
            return None
        if not fits:
            dout = xp.array(dout, order="C", copy=True)
        dtype, q, k, v = dout.dtype, call.q, call.k, call.v
        dq, dk, dv = (
            xp.ndarray(q.shape, dtype),
            xp.ndarray(k.shape, dtype),
            xp.ndarray(v.shape, dtype),
        )
        pointers = {Q: q.data.ptr, K: k.data.ptr, V: v.data.ptr, OUT: room.ptr + plan.kept_at, STATS: room.ptr}
        pointers |= {DOUT: dout.data.ptr, DQ: dq.data.ptr, DK: dk.data.ptr, DV: dv.data.ptr}
        if not self._execute(ready, pointers):
            plan.backward.put(layout, (ready._replace(graph=None), fits))
            return None
        if call.keys_are_values:
            dk += dv
            return dq, dk, None
        return dq, dk, dv

    def plan(self, call: CudaCall) -> CudnnPlan:
        """A plan of its own for a call whose forward was served already."""
        return CudnnPlan(call, Band.of(call))

    def _new_plan(self, call: CudaCall) -> CudnnPlan:
        sizes = call.q.shape[2], call.v.shape[2]
        half = call.q.dtype.name in ("float16", "bfloat16")
        fit = half and not call.options and not any(size % ALIGNED for size in sizes)
        plan = CudnnPlan(call, Band.of(call) if fit else None)
        if plan.band is not None:
            heads = {**self._operands(call, plan), OUT: _layout(plan.out, None, call.groups)}
            ready = self._ready(call, plan.band, {**heads, STATS: _layout((*plan.out[:2], 1), None, call.groups)})
            plan.forward = None if ready.graph is None else ready
        return plan

    def _ready_backward(self, plan: CudnnPlan, call: CudaCall, dout: Array) -> tuple[Ready, bool]:
        groups, fits = call.groups, _fits(dout)
        heads = {**self._operands(call, plan), OUT: _layout(plan.out, None, groups)}
        heads |= {
            STATS: _layout((*plan.out[:2], 1), None, groups),
            DOUT: _layout(plan.out, dout if fits else None, groups),
        }
        heads |= {DQ: _layout(call.q.shape, None, groups), DK: _layout(call.k.shape, None, 1)}
        return self._ready(call, plan.band, {**heads, DV: _layout(call.v.shape, None, 1)}), fits

    def _operands(self, call: CudaCall, plan: CudnnPlan) -> dict[int, Layout]:
        arrays, groups = (call.q, call.k, call.v), (call.groups, 1, 1)
        return {
            name: _layout(x.shape, x if fits else None, count)
            for name, x, fits, count in zip((Q, K, V), arrays, plan.fits, groups, strict=True)
        }

    def _fitting(self, call: CudaCall, plan: CudnnPlan) -> CudaCall:
        """The call with copies of the operands that cuDNN does not read as they lie."""
        q, k, v = (
            x if fits else self.xp.array(x, order="C", copy=True)
            for x, fits in zip((call.q, call.k, call.v), plan.fits, strict=True)
        )
        return call._replace(q=q, k=k, v=k if call.v is call.k else v)

    def _ready(self, call: CudaCall, band: Band | None, layouts: dict[int, Layout]) -> Ready:
        device = self.xp.cuda.runtime.getDevice()
        description = Description(
            device, call.q.dtype.name, call.scale, band or Band(None, None, False), tuple(layouts.items())
        )
        try:
            graph = self._build(description, self._handle())
            return Ready(description, graph, max(1, graph.get_workspace_size()))
        except self.xp.cuda.runtime.CUDARuntimeError:
            raise  # a RuntimeError, but the device's and not cuDNN's: nothing that follows would be right
        except self._refusals as error:
            self._note(description, error)
            return Ready(description, None, 0)

    def _execute(self, ready: Ready, pointers: dict[int, int]) -> bool:
        """Execute a graph for these arrays; False if cuDNN refuses."""
        workspace = self.xp.cuda.alloc(ready.workspace)
        try:
            ready.graph.execute(pointers, workspace.ptr, handle=self._handle())
        except self.xp.cuda.runtime.CUDARuntimeError:
            raise
        except self._refusals as error:
            self._note(ready.description, error)
            return False
        return True

    def _note(self, description: Description, error: Exception) -> None:
        self.refused[str(description)] = reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        logging.getLogger("attnbackends").info("cuDNN refuses attention %s: %s", description, reason)

    def _handle(self) -> Any:
        cuda = self.xp.cuda
        place = cuda.runtime.getDevice(), cuda.get_current_stream().ptr
        if place not in self._handles:
            self._handles[place] = self._cudnn.create_handle()
            self._cudnn.set_stream(handle=self._handles[place], stream=place[1])
        return self._handles[place]

    def _build(self, description: Description, handle: Any) -> Any:
        cudnn = self._cudnn
        single = cudnn.data_type.FLOAT
        half = {"float16": cudnn.data_type.HALF, "bfloat16": cudnn.data_type.BFLOAT16}[description.dtype]
        graph = cudnn.pygraph(io_data_type=half, intermediate_data_type=single, compute_data_type=single, handle=handle)
        layouts = dict(description.layouts)
        inputs = BACKWARD if description.backward else FORWARD
        options: dict[str, Any] = {"attn_scale": description.scale}
        for name, word in inputs.items():
            dims, strides = map(list, layouts[name])
            kind = single if name == STATS else half
            options[word] = graph.tensor(dim=dims, stride=strides, data_type=kind, uid=name)
        band = description.band
        if band.left is not None or band.right is not None:
            alignment = cudnn.diagonal_alignment
            options["diagonal_alignment"] = alignment.BOTTOM_RIGHT if band.at_end else alignment.TOP_LEFT
            options |= {} if band.left is None else {"diagonal_band_left_bound": band.left}
            options |= {} if band.right is None else {"diagonal_band_right_bound": band.right}
        results = graph.sdpa_backward(**options) if description.backward else graph.sdpa(generate_stats=True, **options)
        for name, result in zip((name for name in layouts if name not in inputs), results, strict=True):
            dims, strides = map(list, layouts[name])
            result.set_output(True).set_uid(name).set_data_type(single if name == STATS else half)
            result.set_dim(dims).set_stride(strides)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        return graph


def _of_backend() -> Any:
    return get_backend("cupy")._cudnn  # type: ignore[attr-defined]


def _fits(x: Array) -> bool:
    """Whether cuDNN reads and writes it as it lies: dense rows (·, ·, D) that begin at multiples of 16 bytes."""
    unit = ALIGNED * x.dtype.itemsize
    steps = [stride for size, stride in zip(x.shape[:2], x.strides[:2], strict=True) if size > 1]
    return bool(x.strides[2] == x.dtype.itemsize and all(n > 0 and n % unit == 0 for n in [*steps, x.data.ptr]))


def _layout(shape: tuple[int, ...], x: Array | None, groups: int) -> Layout:
    """Dims and strides of rows (B, groups * T, D) as heads (B, groups, T, D); dense where there is no array."""
    B, R, D = shape
    down = D if x is None or R == 1 else x.strides[1] // x.itemsize
    across = R * down if x is None or B == 1 else x.strides[0] // x.itemsize
    return (B, groups, R // groups, D), (across, R // groups * down, down, 1)
