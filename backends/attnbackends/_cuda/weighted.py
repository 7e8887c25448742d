"""Attention that keeps its weights: products by cuBLAS, and one kernel between them.

Forward is three launches: scores, ``attention_weights``, output. Backward is five: gradient of the weights,
``attention_weights_backward``, and the gradients of q, k and v; where scores are capped they are made again. It takes
every option and every dtype as it is, and as much memory as the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._attention import Array, OwnAttention
from .._registry import get_backend
from .attention import FURTHER, SIZES, VISIBILITY, further_numbers, numbers
from .call import CudaCall
from .compiled import Kernels
from .decode import stored_as
from .plans import PLANS, CudaAttention, addresses_of, log_sum_exp, stats_dtype
from .products import Product, Products, Stack
from .recent import Recent

BLOCK = 256
"""Threads of a block, as in ``kernels/attention_weights.cu``."""

LONGEST_OF_A_WARP = 1024
"""Keys up to which a warp has a row, which its threads then hold in registers; a longer one is for a block."""

EVERY_OPTION = 16
"""A bit beside those of `CudaCall.options`, with which a kernel has the parameters of all of them."""

NO_OPTIONS = (0, 0, 0, 1, 0.0, 0.0, 1.0)
"""What `further_numbers` would say of a call without options."""


class Plan(NamedTuple):
    """What calls of one kind launch: all of it that does not depend on where their arrays lie.

    Attributes
    ----------
    dense : (bool, bool, bool)
        Whether q, k and v are read as they lie.
    may_hide : bool
        `CudaCall.may_hide`: backward reads copies of q, k and v.
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

    dense: tuple[bool, bool, bool]
    may_hide: bool
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

    def attention(self, call: CudaCall) -> WeightedResult | None:
        """Forward; None where weights are not to be kept, or the device multiplies no such numbers."""
        (B, R, D), (_, T_k, D_v), dtype = call.q.shape, call.v.shape, call.q.dtype
        if B * R * T_k * dtype.itemsize > call.keep_bytes or not call.is_near or not self._products.takes(dtype):
            return None
        if call.bias is not None and call.bias.dtype != dtype:
            return None
        plan, xp, sums = self.plan(call), self.xp, stats_dtype(call)
        call = self._readable(call, plan)
        sight, q, k, v = self._own.sight(call), call.q, call.k, call.v
        out, stats = xp.ndarray((B, R, D_v), dtype=dtype), xp.ndarray((2, B, R, 1), dtype=sums)
        scores = xp.ndarray((B, R, T_k), dtype=sums)
        weights = scores if sums == dtype else xp.ndarray(scores.shape, dtype=dtype)
        used = xp.ndarray(scores.shape, dtype=dtype) if call.dropout else None
        seen: tuple[Array | None, ...] = (None, None, None)
        if plan.may_hide:
            seen_k = xp.ndarray((B, T_k, D), dtype=dtype)
            seen_v = None if v is k else xp.ndarray((B, T_k, D_v), dtype=dtype)
            seen = xp.ndarray((B, R, D), dtype=dtype), seen_k, seen_v
            call = call._replace(q=seen[0], k=seen_k, v=seen_k if seen_v is None else seen_v)
        plan.scores(q.data.ptr, k.data.ptr, scores.data.ptr)
        plan.weights(
            *addresses_of((scores, weights, used, stats, q, k, v, *seen, *sight)),
            *numbers(call),
            B,
            *addresses_of((call.bias, call.sinks)),
            *call.draws,
            *(further_numbers(call) or NO_OPTIONS),
        )
        plan.output((weights if used is None else used).data.ptr, call.v.data.ptr, out.data.ptr)
        return WeightedResult(self, plan, call, out, stats, weights)

    def backward(self, result: WeightedResult, dout: Array, dlse: Array | None) -> tuple[Array, Array, Array | None]:
        """As `WeightedResult.backward`."""
        plan, call, weights, xp = result.plan, result.call, result.weights, self.xp
        (q, k, v), dtype, sums = (call.q, call.k, call.v), call.q.dtype, stats_dtype(call)
        dlse = None if dlse is None else xp.ascontiguousarray(dlse)
        (into_weights, into_values), dout = self._of_dout(plan, dout)
        dweights = xp.ndarray(weights.shape, dtype=sums)
        dscores = dweights if sums == dtype else xp.ndarray(weights.shape, dtype=dtype)
        used = xp.ndarray(weights.shape, dtype=dtype) if call.dropout else None
        scores = None if call.softcap is None else xp.ndarray(weights.shape, dtype=sums)
        dq, dk = xp.ndarray(q.shape, dtype=dtype), xp.ndarray(k.shape, dtype=dtype)
        dv = dk if call.keys_are_values else xp.ndarray(v.shape, dtype=dtype)
        into_weights(dout.data.ptr, v.data.ptr, dweights.data.ptr)
        if scores is not None:
            plan.again(q.data.ptr, k.data.ptr, scores.data.ptr)
        plan.dscores(
            *addresses_of((dweights, weights, dscores, used, scores, dlse)),
            *weights.shape,
            call.scale,
            0,
            0,
            *call.draws,
            *(further_numbers(call) or NO_OPTIONS),
        )
        plan.dq(dscores.data.ptr, k.data.ptr, dq.data.ptr)
        plan.dk(dscores.data.ptr, q.data.ptr, dk.data.ptr)
        into_values((weights if used is None else used).data.ptr, dout.data.ptr, dv.data.ptr)
        return dq, dk, None if dv is dk else dv

    def plan(self, call: CudaCall) -> Plan:
        """The plan of a call, made at the first one of its kind."""
        key = call.key
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

        of_a_row = 32 if T_k <= LONGEST_OF_A_WARP else BLOCK
        macros = f"{stored_as(name)}#define THREADS {of_a_row}\n#define OPTIONS {call.options | EVERY_OPTION}\n"
        rows, items = B * R, B * (R + T_k) if may_hide else B * R

        def kernel(name: str, kinds: str, items: int) -> Callable[..., None]:
            grid = -(-items // (BLOCK // of_a_row)), BLOCK
            return self._kernels.ready(name, sums.char, f"{kinds}{FURTHER}", grid, 0, macros)

        return Plan(
            dense=(found[0] is not None, found[1] is not None, found[2] is not None),
            may_hide=may_hide,
            scores=ready(widened, B, (R, D, T_k), q, k.mT, weights),
            output=ready(stored, B, (R, T_k, D_v), weights, then_v, out),
            weights=kernel("attention_weights", f"{'P' * 10}{VISIBILITY}{SIZES}i", items),
            dscores=kernel("attention_weights_backward", "PPPPPPiiir", rows),
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


def _of_backend() -> WeightedAttention | None:
    return get_backend("cupy")._weighted  # type: ignore[attr-defined]


class WeightedResult(OwnAttention):
    """What `WeightedAttention` returns, and all that its backward needs.

    Parameters
    ----------
    way : WeightedAttention
    plan : Plan
    call : CudaCall
        With operands as backward reads them.
    out : array (B, R, D_v)
        The caller's to write to.
    stats : array (2, B, R, 1)
        The shift of each row, and one over the sum of its ``exp(score - shift)``.
    weights : array (B, R, T_k)
        Before dropout.
    """

    def __init__(
        self, way: WeightedAttention, plan: Plan, call: CudaCall, out: Array, stats: Array, weights: Array
    ) -> None:
        self._way, self.plan, self.call, self.out, self._stats, self.weights = way, plan, call, out, stats, weights

    @property
    def lse(self) -> Array:
        shift, inverse = self._stats
        return log_sum_exp(self._way.xp, shift, inverse)

    def backward(self, dout: Array, dlse: Array | None) -> tuple[Array, Array, Array | None] | None:
        return self._way.backward(self, dout, dlse)

    def __getstate__(self) -> tuple[Any, ...]:
        """What can be copied: arrays, not the plan."""
        return self._way, self.call, self.out, self._stats, self.weights

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._way, self.call, self.out, self._stats, self.weights = state
        self.plan = self._way.plan(self.call)
