"""Attention that keeps its weights: products by cuBLAS, and one kernel between them.

Forward is three launches: scores, ``attention_weights``, output. Backward is five: gradient of the weights,
``attention_weights_backward``, and the gradients of q, k and v; where scores are capped they are made again. It takes
every option and every dtype as it is, and as much memory as the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Any, NamedTuple

from .._attention import Array
from .._registry import get_backend
from .attention import BACKWARD, FURTHER, SIZES, VISIBILITY, further_numbers, numbers
from .call import CudaCall
from .compiled import Kernels
from .decode import stored_as
from .plans import PLANS, CudaAttention, addresses_of, lse_of, stats_dtype
from .products import Product, Products, Stack
from .recent import Recent
from .result import CudaResult, room_of

BLOCK = 256
"""Threads of a block, as in ``kernels/attention_weights.cu``."""

LONGEST_OF_A_WARP = 1024
"""Keys up to which a warp has a row, which its threads then hold in registers; a longer one is for a block."""

EVERY_OPTION = 16
"""A bit beside those of `CudaCall.options`, with which a kernel has the parameters of all of them."""

NO_OPTIONS = (0, 0, 0, 1, 1, 1, 0.0, 0.0, 1.0)
"""What `further_numbers` would say of a call without options."""


class Plan(NamedTuple):
    """What calls of one kind launch: all of it that does not depend on where their arrays lie.

    Attributes
    ----------
    weights_bytes, products_bytes : int
        Of weights, infinite for a call that cannot be served, and of scores before them.
    weights_at, room : int
        Where weights begin in the memory that stats and they share, and the bytes of both.
    out : tuple of int
        Shape of the output.
    dense : (bool, bool, bool)
        Whether q, k and v are read as they lie.
    may_hide : bool
        `CudaCall.may_hide`: backward reads copies of q, k and v.
    numbers, further, shape : tuples
        What the kernels are told beside addresses; the last is for backward.
    scores, output : Product
    weights, dscores : callables
        The two kernels.
    again, dq, dk : Product
        Scores as backward makes them, and gradients.
    of_dout : callable
        From how the gradient of the output lies to the two products that it goes into, of dweights and dv.
    dense_dout : (Product, Product)
        The two for one in the order of C.
    """

    weights_bytes: float
    products_bytes: int
    weights_at: int
    room: int
    out: tuple[int, int, int]
    dense: tuple[bool, bool, bool]
    may_hide: bool
    numbers: tuple[float, ...]
    further: tuple[float, ...]
    shape: tuple[float, ...]
    scores: Product
    output: Product
    weights: Callable[..., None]
    dscores: Callable[..., None]
    again: Product
    dq: Product
    dk: Product
    of_dout: Callable[[Stack], tuple[Product, Product]]
    dense_dout: tuple[Product, Product]


class WeightedAttention:
    """Attention by products, and what calls of it launch.

    Parameters
    ----------
    kernels : Kernels
    products : Products
    own : CudaAttention
        The fused kernels, which have the arrays of positions on the device.
    """

    def __init__(self, kernels: Kernels, products: Products, own: CudaAttention) -> None:
        self.xp = kernels.xp
        self._kernels, self._products, self._own = kernels, products, own
        self._plans: Recent[Plan] = Recent(PLANS)

    def __reduce__(self) -> Any:
        """A copy, or what is unpickled, is the one of the backend."""
        return _of_backend, ()

    def attention(self, call: CudaCall, key: Hashable) -> CudaResult | None:
        """Forward of a call with its key; None where weights are not to be kept, or it cannot be served."""
        plan = self.plan(call, key)
        if plan.weights_bytes > call.keep_bytes:
            return None
        call = self._readable(call, plan)
        xp, alloc, dtype, (q, k, v) = self.xp, self.xp.cuda.alloc, call.q.dtype, call[:3]
        sight, out, room = self._own.sight(call), xp.ndarray(plan.out, dtype), alloc(plan.room)
        weights = room.ptr + plan.weights_at
        products = alloc(plan.products_bytes) if plan.products_bytes != plan.weights_bytes else None
        at_products = weights if products is None else products.ptr
        used = alloc(plan.weights_bytes) if call.dropout else None
        at_used = weights if used is None else used.ptr
        seen: tuple[Array | None, ...] = (None, None, None)
        if plan.may_hide:
            seen_k = xp.ndarray(k.shape, dtype)
            seen = xp.ndarray(q.shape, dtype), seen_k, None if v is k else xp.ndarray(v.shape, dtype)
            call = call._replace(q=seen[0], k=seen_k, v=seen_k if v is k else seen[2])
        plan.scores(q.data.ptr, k.data.ptr, at_products)
        plan.weights(
            at_products,
            weights,
            at_used,
            room.ptr,
            *addresses_of((q, k, v, *seen, *sight)),
            *plan.numbers,
            *addresses_of((call.bias, call.sinks)),
            *call.draws,
            *plan.further,
        )
        plan.output(at_used, call.v.data.ptr, out.data.ptr)
        return CudaResult(self, plan, call, (), out, room)

    def backward(
        self, result: CudaResult, dout: Array, dlse: Array | None, dsinks: Array | None = None
    ) -> tuple[Array, Array, Array | None] | None:
        """As `CudaResult.backward`."""
        plan, call, xp, alloc = result.plan, result.call, self.xp, self.xp.cuda.alloc
        if plan is None:
            return None
        q, k, v, dtype, weights = call.q, call.k, call.v, call.q.dtype, result.room.ptr + plan.weights_at
        dlse = None if dlse is None else xp.ascontiguousarray(dlse)
        (into_weights, into_values), dout = self._of_dout(plan, dout)
        dweights = alloc(plan.products_bytes)
        dscores = dweights if plan.products_bytes == plan.weights_bytes else alloc(plan.weights_bytes)
        used = alloc(plan.weights_bytes) if call.dropout else None
        scores = alloc(plan.products_bytes) if call.softcap is not None else None
        dq, dk = xp.ndarray(q.shape, dtype), xp.ndarray(k.shape, dtype)
        dv = dk if call.keys_are_values else xp.ndarray(v.shape, dtype)
        into_weights(dout.data.ptr, v.data.ptr, dweights.ptr)
        if scores is not None:
            plan.again(q.data.ptr, k.data.ptr, scores.ptr)
        at_used = weights if used is None else used.ptr
        plan.dscores(
            dweights.ptr,
            weights,
            dscores.ptr,
            at_used,
            0 if scores is None else scores.ptr,
            result.room.ptr,
            0 if dlse is None else dlse.data.ptr,
            *plan.shape,
            *addresses_of((dsinks, None, call.sinks)),
            *call.draws,
            *plan.further,
        )
        plan.dq(dscores.ptr, k.data.ptr, dq.data.ptr)
        plan.dk(dscores.ptr, q.data.ptr, dk.data.ptr)
        into_values(at_used, dout.data.ptr, dv.data.ptr)
        return dq, dk, None if dv is dk else dv

    def lse(self, result: CudaResult) -> Array:
        """As `CudaResult.lse`."""
        return lse_of(self.xp, result)

    def plan(self, call: CudaCall, key: Hashable = None) -> Plan:
        """The plan of a call, as `CudaAttention.plan`."""
        key = key or call.key
        return self._plans.get(key) or self._plans.put(key, self._new_plan(call))

    def _new_plan(self, call: CudaCall) -> Plan:
        (B, R, D), (_, T_k, D_v) = call.q.shape, call.v.shape
        name, sums, ready = call.q.dtype.name, stats_dtype(call), self._products.ready
        widened, stored = (name, sums.name), (name, name)
        may_hide, dense = call.may_hide, (Stack.dense(R, D), Stack.dense(T_k, D), Stack.dense(T_k, D_v))
        found = tuple(Stack.of(x) if not may_hide or x.flags.c_contiguous else None for x in call[:3])
        q, k, v = (stack or other for stack, other in zip(found, dense, strict=True))
        then_q, then_k, then_v = dense if may_hide else (q, k, v)
        weights, out = Stack.dense(R, T_k), Stack.dense(R, D_v)

        def of_dout(dout: Stack) -> tuple[Product, Product]:
            into_weights = ready(widened, B, (R, D_v, T_k), dout, then_v.mT, weights)
            add = call.keys_are_values
            return into_weights, ready(stored, B, (T_k, R, D_v), weights.mT, dout, dense[2], add)

        of_a_row = threads_of_a_row(T_k)
        macros = macros_for(name, of_a_row, call.options)
        rows, items = B * R, B * (R + T_k) if may_hide else B * R

        def kernel(name: str, kinds: str, items: int) -> Callable[..., None]:
            grid = -(-items // (BLOCK // of_a_row)), BLOCK
            return self._kernels.ready(name, sums.char, kinds, grid, 0, macros)

        served = call.is_near and self._products.takes(call.q.dtype)
        if call.bias is not None and call.bias.dtype != call.q.dtype:
            served = False
        weights_bytes, stats = B * R * T_k * call.q.itemsize, room_of(2 * B * R * sums.itemsize)
        return Plan(
            weights_bytes=weights_bytes if served else inf,
            products_bytes=B * R * T_k * sums.itemsize,
            weights_at=stats,
            room=stats + weights_bytes,
            out=(B, R, D_v),
            numbers=(*numbers(call), B),
            further=further_numbers(call) or NO_OPTIONS,
            shape=(B, R, T_k, call.scale),
            dense=(found[0] is not None, found[1] is not None, found[2] is not None),
            may_hide=may_hide,
            scores=ready(widened, B, (R, D, T_k), q, k.mT, weights),
            output=ready(stored, B, (R, T_k, D_v), weights, then_v, out),
            weights=kernel("attention_weights", f"{'P' * 10}{VISIBILITY}{SIZES}i{FURTHER}", items),
            dscores=kernel("attention_weights_backward", f"PPPPPPPiiir{BACKWARD}", rows),
            again=ready(widened, B, (R, D, T_k), then_q, then_k.mT, weights),
            dq=ready(stored, B, (R, T_k, D), weights, then_k, dense[0]),
            dk=ready(stored, B, (T_k, R, D), weights.mT, then_q, dense[1]),
            of_dout=of_dout,
            dense_dout=of_dout(out),
        )

    def _readable(self, call: CudaCall, plan: Plan) -> CudaCall:
        """The call with operands, and sinks, as they are read."""
        dense = self.xp.ascontiguousarray
        if call.sinks is not None:
            call = call._replace(sinks=dense(call.sinks))
        if plan.dense == (True, True, True):
            return call
        q, k, v = (x if fits else dense(x) for x, fits in zip(call[:3], plan.dense, strict=True))
        return call._replace(q=q, k=k, v=k if call.v is call.k else v)

    def _of_dout(self, plan: Plan, dout: Array) -> tuple[tuple[Product, Product], Array]:
        if dout.flags.c_contiguous:
            return plan.dense_dout, dout
        stack = Stack.of(dout)
        if stack is None:
            return plan.dense_dout, self.xp.ascontiguousarray(dout)
        return plan.of_dout(stack), dout


def threads_of_a_row(T_k: int) -> int:
    """Threads that share a row of so many keys."""
    return 32 if T_k <= LONGEST_OF_A_WARP else BLOCK


def macros_for(dtype: str, of_a_row: int, options: int) -> str:
    """What the kernels are compiled with: the dtype of the arguments, threads of a row, and `CudaCall.options`."""
    return f"{stored_as(dtype)}#define THREADS {of_a_row}\n#define OPTIONS {options | EVERY_OPTION}\n"


def _of_backend() -> WeightedAttention | None:
    return get_backend("cupy")._weighted  # type: ignore[attr-defined]
