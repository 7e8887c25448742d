"""A problem to its results, and back, by the way that serves it: the library's own, `dense` or `tiled`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from attnbackends import Array, OwnAttention

from ..dtypes import narrow, widen
from . import dense, tiled
from .blocks import Chain
from .gradients import InputGrads, OutputGrads
from .layout import Layout, Shape
from .problem import Problem

Result = dense.Dense | tiled.Tiled | OwnAttention
"""What a way leaves for backward."""


class SavedAttention(NamedTuple):
    """What the backward of `attention` and `attention_weights` needs.

    Attributes
    ----------
    problem : Problem
    layout : Layout
    result : Dense, Tiled or OwnAttention
    shapes : dict of str to tuple of int
        Of the bias and the sinks as they came.
    """

    problem: Problem
    layout: Layout
    result: Result
    shapes: dict[str, Shape]

    def flat_gradient(self, name: str, gradient: Array, last: Shape) -> Array:
        """An incoming gradient (..., T_q, *last) in flat form, held against the shape of what it belongs to."""
        return self.layout.flatten_gradient(self.problem.backend, name, gradient, self.problem.q, last)

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k), before dropout; float32 where the arguments were in half precision.

        An array of its own at each call: backward needs the ones that were kept.
        """
        xp, result = self.problem.backend.xp, self.result
        kept = result if isinstance(result, dense.Dense) else run_dense(self.problem, None)
        weights = xp.astype(kept.exp, kept.exp.dtype, copy=True) if kept.divided else kept.exp * kept.inverse
        return self.layout.unflatten(xp, weights)


def run_dense(problem: Problem, out: Array | None) -> dense.Dense:
    """The weights, and the output where there is room for it."""
    result = dense.buffers(problem)
    problem.backend.map(lambda chain: dense.forward(problem, chain, result, out), problem.cut.chains)
    return result


def run_tiled(problem: Problem) -> tiled.Tiled:
    """The output in O(T) memory."""
    result = tiled.buffers(problem)
    problem.backend.map(lambda chain: tiled.forward(problem, chain, result), problem.cut.chains)
    return result


def log_sum_exp(xp: Any, result: Result) -> Array:
    """The log-sum-exp of rows (B, R, 1), -inf of one that sees nothing."""
    if isinstance(result, OwnAttention):
        return result.lse
    shift, inverse = result.shift, result.inverse
    empty = inverse == 0
    return xp.where(empty, xp.full_like(shift, -xp.inf), shift - xp.log(xp.where(empty, xp.ones_like(shift), inverse)))


def backward(saved: SavedAttention, incoming: OutputGrads, names: Sequence[str]) -> tuple[Array, ...]:
    """Gradients of q, k and, unless keys are the values, v, then those of `names`, in the shapes of the arguments."""
    problem, layout, result = saved.problem, saved.layout, saved.result
    backend, xp = problem.backend, problem.backend.xp
    dsinks: Any = None
    own, dbias = None, None
    if isinstance(result, OwnAttention) and "bias" not in names:  # no library has that gradient
        dsinks = problem.empty_rows(1) if "sinks" in names else None
        own = result.backward(incoming.dout, incoming.dlse, dsinks)
    if own is None:
        dq, dk, dv, dbias, dsinks = _by_chains(problem, result, incoming, names)
    else:
        dq, dk, dv = own
    gradients = [
        layout.unflatten_query_gradient(xp, dq),
        layout.unflatten_key_gradient(xp, dk, layout.k),
    ]
    if dv is not None:
        gradients.append(layout.unflatten_key_gradient(xp, dv, layout.v))
    for name in names:
        if name == "bias":
            gradients.append(xp.reshape(dbias, saved.shapes[name]))
        else:
            gradients.append(layout.unflatten_sinks_gradient(xp, dsinks, saved.shapes[name]))
    if own is not None and not names:  # they have the dtype of the arguments
        return tuple(gradients)
    return tuple([narrow(backend, gradient, problem.q.dtype) for gradient in gradients])


def _by_chains(
    problem: Problem, result: Result, incoming: OutputGrads, names: Sequence[str]
) -> tuple[Array, Array, Array | None, Any, Any]:
    """dq, dk, dv, dbias and dsinks in flat form; None for what there is none of."""
    backend, xp = problem.backend, problem.backend.xp
    if isinstance(result, OwnAttention):  # the library declined: what its forward found is of no use to others
        result = run_tiled(problem)
    chains = problem.cut.chains
    shares = 1 + max([chain.share for chain in chains], default=0)

    def buffer(like: Array) -> Array:
        return backend.empty(tuple(like.shape), like=like, dtype=problem.dtype)

    grads = InputGrads(
        dq=buffer(problem.q),
        dk=[buffer(problem.k) for _ in range(shares)],
        dv=[] if problem.v is None else [buffer(problem.v) for _ in range(shares)],
        dbias=xp.zeros_like(widen(backend, problem.bias.array)) if problem.bias and "bias" in names else None,
        dsinks=xp.zeros_like(problem.sinks) if "sinks" in names else None,
    )

    def work(chains: Sequence[Chain]) -> None:
        for chain in chains:
            if isinstance(result, dense.Dense):
                dense.backward(problem, chain, result, incoming, grads)
            else:
                tiled.backward(problem, chain, result, incoming, grads)

    one_by_one = grads.dbias is not None  # chains may add to one place of it
    backend.map(work, [chains] if one_by_one else [[chain] for chain in chains])
    return grads.dq, _total(grads.dk), _total(grads.dv) if grads.dv else None, grads.dbias, grads.dsinks


def _total(parts: list[Array]) -> Array:
    first, *others = parts
    for other in others:
        first += other
    return first
