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
from typing import Any, NamedTuple

from .._attention import OwnAttention
from .._base import Array
from .._registry import get_backend
from .call import CudaCall

Q, K, V, OUT, STATS, DOUT, DQ, DK, DV = range(1, 10)
"""Names of the arrays within a graph."""

FORWARD, BACKWARD = {Q: "q", K: "k", V: "v"}, {Q: "q", K: "k", V: "v", OUT: "o", DOUT: "dO", STATS: "stats"}
"""What goes in, and what the frontend calls it."""

ALIGNED = 8
"""Numbers in 16 bytes: what head sizes and strides are multiples of."""

MOST_GRAPHS = 512
"""Graphs kept; with more shapes than that, all are built anew."""

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

    def __reduce__(self) -> Any:
        """A copy, or what is unpickled, is the one of the backend."""
        return _of_backend, ()

    def __init__(self, cupy: Any) -> None:
        import cudnn

        self._cupy, self._cudnn = cupy, cudnn
        self.version = str(cudnn.__version__)
        self._refusals = (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError, NotImplementedError)
        self._handles: dict[tuple[int, int], Any] = {}
        self._graphs: dict[Description, Any] = {}
        self.refused: dict[str, str] = {}
        """Calls that were refused, in words, and why."""

    def attention(self, call: CudaCall) -> CudnnResult | None:
        """Forward; None where cuDNN does not serve the call."""
        band, xp = self._takes(call), self._cupy
        if band is None:
            return None
        B, R, _ = call.q.shape
        out, lse = xp.ndarray((B, R, call.v.shape[2]), dtype=call.q.dtype), xp.ndarray((B, R, 1), dtype="f")
        k = self._fitting(call.k)
        call = call._replace(q=self._fitting(call.q), k=k, v=k if call.v is call.k else self._fitting(call.v))
        groups = call.groups
        heads = {Q: (call.q, groups), K: (call.k, 1), V: (call.v, 1), OUT: (out, groups), STATS: (lse, groups)}
        if not self._run(call, band, heads):
            return None
        kept = xp.ndarray(out.shape, dtype=out.dtype)
        kept.data.copy_from_device_async(out.data, out.nbytes)
        return CudnnResult(self, call, out, lse, kept)

    def backward(self, result: CudnnResult, dout: Array, dlse: Array | None) -> Any:
        """As `CudnnResult.backward`. Sums into the gradient of q come in any order: the last bits may differ."""
        call, xp = result.call, self._cupy
        band = Band.of(call)
        one = call.T_q == call.k.shape[1] == 1
        if band is None or dlse is not None or one:
            return None
        dq, dk, dv = (xp.ndarray(x.shape, dtype=x.dtype) for x in (call.q, call.k, call.v))
        groups = call.groups
        heads = {Q: (call.q, groups), K: (call.k, 1), V: (call.v, 1), OUT: (result.kept, groups)}
        heads |= {STATS: (result.stats, groups), DOUT: (self._fitting(dout), groups)}
        heads |= {DQ: (dq, groups), DK: (dk, 1), DV: (dv, 1)}
        if not self._run(call, band, heads):
            return None
        if call.keys_are_values:
            dk += dv
            return dq, dk, None
        return dq, dk, dv

    def _takes(self, call: CudaCall) -> Band | None:
        sizes = call.q.shape[2], call.v.shape[2]
        half = call.q.dtype.name in ("float16", "bfloat16")
        fit = half and not call.options and not any(size % ALIGNED for size in sizes)
        return Band.of(call) if fit else None

    def _fitting(self, x: Array) -> Array:
        return x if _fits(x) else self._cupy.array(x, order="C", copy=True)

    def _run(self, call: CudaCall, band: Band, heads: dict[int, tuple[Array, int]]) -> bool:
        """Execute the graph for these arrays, named and with the number of heads that each has; False if refused."""
        device = self._cupy.cuda.runtime.getDevice()
        layouts = tuple((name, _layout(x, groups)) for name, (x, groups) in heads.items())
        description = Description(device, call.q.dtype.name, call.scale, band, layouts)
        if self._graphs.get(description, self) is None:
            return False
        try:
            handle = self._handle(device)
            if description not in self._graphs:
                if len(self._graphs) >= MOST_GRAPHS:
                    self._graphs.clear()
                self._graphs[description] = self._build(description, handle)
            graph = self._graphs[description]
            workspace = self._cupy.empty(max(1, graph.get_workspace_size()), dtype="uint8")
            pointers = {name: x.data.ptr for name, (x, _) in heads.items()}
            graph.execute(pointers, workspace.data.ptr, handle=handle)
        except self._cupy.cuda.runtime.CUDARuntimeError:
            raise  # a RuntimeError, but the device's and not cuDNN's: nothing that follows would be right
        except self._refusals as error:
            self._graphs[description] = None
            self.refused[str(description)] = reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            logging.getLogger("attnbackends").info("cuDNN refuses attention %s: %s", description, reason)
            return False
        return True

    def _handle(self, device: int) -> Any:
        stream = self._cupy.cuda.get_current_stream().ptr
        if (device, stream) not in self._handles:
            self._handles[device, stream] = self._cudnn.create_handle()
            self._cudnn.set_stream(handle=self._handles[device, stream], stream=stream)
        return self._handles[device, stream]

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


class CudnnResult(OwnAttention):
    """What `CudnnAttention` returns.

    Parameters
    ----------
    way : CudnnAttention
    call : CudaCall
        With operands as cuDNN reads them.
    out : array (B, R, D_v)
        The caller's to write to.
    stats : array (B, R, 1)
        Log-sum-exp, float32.
    kept : array (B, R, D_v)
        The output as backward reads it.
    """

    def __init__(self, way: CudnnAttention, call: CudaCall, out: Array, stats: Array, kept: Array) -> None:
        self._way, self.call, self.out, self.stats, self.kept = way, call, out, stats, kept

    @property
    def lse(self) -> Array:
        return self.stats.copy()

    def backward(self, dout: Array, dlse: Array | None) -> tuple[Array, Array, Array | None] | None:
        found: tuple[Array, Array, Array | None] | None = self._way.backward(self, dout, dlse)
        return found


def _fits(x: Array) -> bool:
    """Whether cuDNN reads and writes it as it lies: dense rows (·, ·, D) that begin at multiples of 16 bytes."""
    unit = ALIGNED * x.dtype.itemsize
    steps = [stride for size, stride in zip(x.shape[:2], x.strides[:2], strict=True) if size > 1]
    return bool(x.strides[2] == x.dtype.itemsize and all(n > 0 and n % unit == 0 for n in [*steps, x.data.ptr]))


def _layout(x: Array, groups: int) -> Layout:
    """Dims and strides of rows (B, groups * T, D) as heads (B, groups, T, D)."""
    B, R, D = x.shape
    item = x.dtype.itemsize
    down = x.strides[1] // item if R > 1 else D
    return (B, groups, R // groups, D), (x.strides[0] // item if B > 1 else R * down, R // groups * down, down, 1)
