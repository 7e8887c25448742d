"""Attention that keeps its weights: for short sequences, and where the weights are asked for."""

from __future__ import annotations

from typing import NamedTuple

from attnbackends import Array, PackedKeys

from ..arrays import finite, row_shift, row_sums
from ..dtypes import widen
from .blocks import Chain
from .gradients import InputGrads, OutputGrads, add_product
from .problem import Problem, inverse_of
from .visibility import Block


class Dense(NamedTuple):
    """What backward needs beside the problem.

    Attributes
    ----------
    exp : array (B, R, T_k)
        ``exp(score - shift)``, before dropout, in the dtype to compute in.
    shift, inverse : arrays (B, R, 1)
        Weights are ``exp(score - shift) * inverse``; a row that sees nothing has 0 for both.
    divided : bool
        Whether `exp` is times `inverse` already. Else that is left to the output and its gradient: they have fewer
        numbers.
    """

    exp: Array
    shift: Array
    inverse: Array
    divided: bool


def buffers(problem: Problem) -> Dense:
    """Memory for the results of `forward`."""
    T_k, empty = problem.k.shape[1], problem.empty_rows
    # Half precision cannot hold a gradient of the output over a total of thousands.
    return Dense(empty(T_k), empty(1), empty(1), problem.is_half or problem.values.shape[-1] > T_k)


def forward(problem: Problem, chain: Chain, result: Dense, out: Array | None) -> None:
    """Write the weights of a chain's rows and, where it is asked for, the output (B, R, D_v) in any dtype."""
    k, v = problem.keys(chain)
    (_, R, D), T_k = problem.q.shape, problem.k.shape[1]
    # Bounds are looked for where there are fewer numbers to read: in the scores, or in queries and keys.
    bounded = problem.is_bounded(chain) if R * T_k > (R + T_k) * D else None
    packed = problem.backend.pack_keys(k) if bounded else None
    for block in chain.blocks:
        weights = _exp(problem, block, k, packed, bounded is None, result)
        if out is None:
            continue
        used = weights * problem.dropped(block, weights) if problem.dropout else weights
        rows = block.entries, block.rows, slice(None)
        inverse = None if result.divided else result.inverse[rows]
        _put_rows(problem, out[rows], problem.operand(used), v[:, block.keys, :], inverse)


def _exp(
    problem: Problem, block: Block, k: Array, packed: PackedKeys | None, may_be_bounded: bool, result: Dense
) -> Array:
    """Write `exp` (b, r, K) of a block, with shift and inverse of its rows; scores with `packed` keys are bounded."""
    backend, xp = problem.backend, problem.backend.xp
    entries, rows, keys = block.entries, block.rows, block.keys
    for outside in (slice(0, keys.start), slice(keys.stop, problem.k.shape[1])):
        if outside.start < outside.stop:
            result.exp[entries, rows, outside] = 0
    weights = result.exp[entries, rows, keys]
    sinks = None if problem.sinks is None else problem.sinks[entries, rows, :]
    if packed is None:
        shift = _exp_of_scores(problem, block, k, may_be_bounded, sinks, weights)
    else:
        packed.exp_scores(problem.queries(block), keys, problem.scale, out=weights)
        problem.hide(block, weights, 0.0)
        shift = 0.0
    total = row_sums(backend, weights)
    if sinks is not None:
        total += xp.exp(sinks - shift)
    inverse = inverse_of(xp, total)
    result.shift[entries, rows, :], result.inverse[entries, rows, :] = shift, inverse
    if result.divided:
        weights *= inverse
    return weights


def _exp_of_scores(
    problem: Problem, block: Block, k: Array, may_be_bounded: bool, sinks: Array | None, weights: Array
) -> Array | float:
    """Write `exp` of scores that may need a shift; returns it."""
    backend, xp, keys = problem.backend, problem.backend.xp, block.keys
    of_queries, of_scores = _factors(problem, block)
    q = _times(problem.queries(block), of_queries)
    backend.matmul(q, k[:, keys, :].mT, out=weights)  # (b, r, D) x (b, D, K) -> (b, r, K)
    if of_scores != 1:
        weights *= of_scores
    problem.add_bias(block, weights)
    shift: Array | float = 0.0
    if may_be_bounded and problem.are_bounded(block, weights):
        backend.apply(xp.exp, weights)
        problem.hide(block, weights, 0.0)
    elif keys.start < keys.stop:
        problem.hide(block, weights, -xp.inf)
        _, shift = row_shift(xp, weights, sinks)
        weights -= shift
        backend.apply(xp.exp, weights)
    elif sinks is not None:
        shift = finite(xp, sinks)
    return shift


def backward(problem: Problem, chain: Chain, result: Dense, incoming: OutputGrads, grads: InputGrads) -> None:
    """Write or add the gradients of a chain's rows."""
    k, v = problem.keys(chain)
    for i, block in enumerate(chain.blocks):
        _backward(problem, chain, block, k[:, block.keys, :], v[:, block.keys, :], i == 0, result, incoming, grads)


def _backward(
    problem: Problem,
    chain: Chain,
    block: Block,
    k: Array,
    v: Array,
    first: bool,
    result: Dense,
    incoming: OutputGrads,
    grads: InputGrads,
) -> None:
    backend, xp = problem.backend, problem.backend.xp
    entries, rows, keys = block.entries, block.rows, block.keys
    of_queries, of_scores = _factors(problem, block)
    queries, weights = problem.queries(block), result.exp[entries, rows, keys]
    q = _times(queries, of_queries)
    share = 1.0 if result.divided else result.inverse[entries, rows, :]  # what is left to multiply by
    used, dout = weights, None
    if incoming.dout is None:
        dweights = xp.zeros_like(weights)
    else:
        dout = incoming.dout[entries, rows, :]
        dout = problem.operand(dout if result.divided else dout * share)
        dweights = backend.matmul(dout, v.mT, dtype=problem.dtype)  # (b, r, D_v) x (b, D_v, K) -> (b, r, K)
    if problem.dropout:
        dropped = problem.dropped(block, weights)
        dweights *= dropped
        used = weights * dropped
    if incoming.dweights is not None:
        dweights += widen(backend, incoming.dweights[entries, rows, keys]) * share
    delta = backend.vecdot(weights, dweights)[..., None]
    if incoming.dlse is not None:
        delta = delta - incoming.dlse[entries, rows, :]
    if problem.sinks is not None:
        sinks, shift, inverse = (x[entries, rows, :] for x in (problem.sinks, result.shift, result.inverse))
        grads.write_sinks(block, xp.exp(sinks - shift) * inverse, delta)
    dscores = dweights
    dscores -= delta * share
    dscores *= weights
    if grads.dbias is not None:
        grads.add_to_bias(problem, block, dscores)
    if problem.softcap is not None:  # weights alone do not tell the scores
        scores = backend.matmul(queries, k.mT, dtype=problem.dtype)
        scores *= problem.scale
        dscores *= problem.cap(scores)
    if of_scores != 1:
        dscores *= of_scores
    into_keys, into_values = problem.operand(dscores), problem.operand(used)
    dq = grads.dq[entries, rows, :]
    _put_product(problem, dq, into_keys, k)  # (b, r, K) x (b, K, D) -> (b, r, D)
    if of_queries != 1:
        dq *= of_queries
    dk, dv = grads.of_keys(chain)
    if dout is None:
        add_product(backend, dk, keys, first, into_keys.mT, q)  # (b, K, r) x (b, r, D) -> (b, K, D)
    elif dv is dk and not problem.is_half and rows.stop - rows.start < q.shape[-1]:  # one product, and no sum of two
        both, of_both = xp.concat((into_keys, into_values), axis=1), xp.concat((q, dout), axis=1)
        add_product(backend, dk, keys, first, both.mT, of_both)  # (b, K, 2 r) x (b, 2 r, D) -> (b, K, D)
    else:
        add_product(backend, dk, keys, first, into_keys.mT, q)
        add_product(backend, dv, keys, first and dv is not dk, into_values.mT, dout)


def _factors(problem: Problem, block: Block) -> tuple[float, float]:
    """What to multiply queries by, and what their scores, for the scale: the array that is smaller."""
    few_keys = block.keys.stop - block.keys.start < problem.q.shape[-1]
    return (1.0, problem.scale) if few_keys or problem.is_half else (problem.scale, 1.0)


def _times(x: Array, factor: float) -> Array:
    return x if factor == 1 else x * factor


def _put_rows(problem: Problem, rows: Array, used: Array, v: Array, inverse: Array | None) -> None:
    """``rows[...] = inverse * (used @ v)``, (b, r, K) x (b, K, D_v) -> (b, r, D_v), rounded once."""
    if inverse is None:
        _put_product(problem, rows, used, v)
    elif rows.dtype == used.dtype:
        problem.backend.matmul(used, v, out=rows)
        rows *= inverse
    else:
        rows[...] = problem.backend.xp.astype(problem.backend.matmul(used, v) * inverse, rows.dtype)


def _put_product(problem: Problem, place: Array, a: Array, b: Array) -> None:
    """``place[...] = a @ b``, rounded to the dtype of the place."""
    if place.dtype == a.dtype:
        problem.backend.matmul(a, b, out=place)
    else:
        place[...] = problem.backend.matmul(a, b, dtype=place.dtype)
