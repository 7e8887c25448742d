"""Attention in O(T) memory: a tile of scores is made, turned into weights, used and forgotten.

Rows keep the shift that their scores were lowered by, and one over the total of ``exp(score - shift)``, apart: the log
of the total would be lost beside a shift of 1e9. Whatever can be done on the (T, D) side of a product is done there,
because a tile of scores has T times as many numbers as a row of queries: forward divides the output by the totals,
backward the gradient of the output, and ``rowsum(dout * out)`` is subtracted within the product that makes the gradient
of the weights, as one more column of `dout` against a row of ones.
"""

from __future__ import annotations

from typing import NamedTuple

from attnbackends import Array, PackedKeys

from ..arrays import finite, row_shift, row_sums
from ..dtypes import widen
from .blocks import Chain, tiles
from .gradients import InputGrads, OutputGrads, add_product
from .problem import Problem, inverse_of
from .visibility import Block


class Tiled(NamedTuple):
    """What backward needs beside the problem.

    Attributes
    ----------
    out : array (B, R, D_v)
        In the dtype to compute in.
    shift, inverse : arrays (B, R, 1)
        Weights are ``exp(score - shift) * inverse``; a row that sees nothing has 0 for both.
    bounded : list of bool
        Of each chain: no score needed a shift, and `shift` is 0.
    """

    out: Array
    shift: Array
    inverse: Array
    bounded: list[bool]


def buffers(problem: Problem) -> Tiled:
    """Memory for the results of `forward`."""
    empty = problem.empty_rows
    return Tiled(empty(problem.values.shape[-1]), empty(1), empty(1), [False] * len(problem.cut.chains))


def forward(problem: Problem, chain: Chain, result: Tiled) -> None:
    """Write the results of a chain's rows."""
    k, v = problem.keys(chain)
    packed = problem.backend.pack_keys(k)
    bounded = result.bounded[chain.number] = problem.is_bounded(chain)
    for block in chain.blocks:
        index = block.entries, block.rows, slice(None)
        out, total, shift = result.out[index], result.inverse[index], result.shift[index]
        (_sum_bounded if bounded else _sum)(problem, block, packed, v, out, total, shift)
        total[...] = inverse_of(problem.backend.xp, total)
        out *= total


def _sum_bounded(
    problem: Problem, block: Block, packed: PackedKeys, v: Array, out: Array, total: Array, shift: Array
) -> None:
    """Add up a block's rows where exp needs no shift: (b, r, D_v), (b, r, 1), (b, r, 1)."""
    total[...], shift[...] = 0, 0
    q = problem.queries(block)
    for i, tile in enumerate(tiles(problem.backend, block, problem.itemsize)):
        weights = packed.exp_scores(q, tile.keys, problem.scale)  # (b, r, D) x (b, K, D) -> (b, r, K)
        problem.hide(tile, weights, 0.0)
        _add(problem, tile, weights, v, i == 0, out, total)


def _sum(problem: Problem, block: Block, packed: PackedKeys, v: Array, out: Array, total: Array, shift: Array) -> None:
    """The same with a shift that grows from tile to tile: what was summed with an old one is scaled to the new."""
    backend, xp = problem.backend, problem.backend.xp
    shift[...] = -xp.inf if problem.sinks is None else problem.sinks[block.entries, block.rows, :]
    out[...], total[...] = 0, xp.exp(shift - finite(xp, shift))  # a sink's weight, else 0
    q = problem.queries(block)
    for tile in tiles(backend, block, problem.itemsize):
        if tile.keys.start == tile.keys.stop:
            continue
        scores = packed.scores(q, tile.keys, problem.scale)  # (b, r, D) x (b, K, D) -> (b, r, K)
        problem.add_bias(tile, scores)
        problem.hide(tile, scores, -xp.inf)
        higher, lowered_by = row_shift(xp, scores, shift)
        factor = xp.exp(shift - lowered_by)
        out *= factor
        total *= factor
        scores -= lowered_by
        _add(problem, tile, backend.apply(xp.exp, scores), v, False, out, total)
        shift[...] = higher
    shift[...] = finite(xp, shift)


def _add(problem: Problem, tile: Block, weights: Array, v: Array, first: bool, out: Array, total: Array) -> None:
    """Add a tile's weights (b, r, K) to the totals, and what they make of the values to the output.

    The first to come finds no output there.
    """
    total += row_sums(problem.backend, weights)
    if problem.dropout:
        weights *= problem.dropped(tile, weights)
    weights, v = problem.operand(weights), v[:, tile.keys, :]
    if first:
        problem.backend.matmul(weights, v, out=out)  # (b, r, K) x (b, K, D_v) -> (b, r, D_v)
    else:
        out += problem.backend.matmul(weights, v, dtype=problem.dtype)


def backward(problem: Problem, chain: Chain, result: Tiled, incoming: OutputGrads, grads: InputGrads) -> None:
    """Write or add the gradients of a chain's rows."""
    k, v = problem.keys(chain)
    packed_k, packed_v = problem.backend.pack_keys(k), problem.backend.pack_keys(v, ones=_folds(problem))
    bounded = result.bounded[chain.number]
    for i, block in enumerate(chain.blocks):
        _backward(problem, chain, block, k, packed_k, packed_v, bounded, i == 0, result, incoming, grads)


def _folds(problem: Problem) -> bool:
    """Whether ``rowsum(dout * out)`` goes into a product: dropout would come between, half precision would round it."""
    return not problem.dropout and not problem.is_half


def _backward(
    problem: Problem,
    chain: Chain,
    block: Block,
    k: Array,
    packed_k: PackedKeys,
    packed_v: PackedKeys,
    bounded: bool,
    first: bool,
    result: Tiled,
    incoming: OutputGrads,
    grads: InputGrads,
) -> None:
    backend, xp = problem.backend, problem.backend.xp
    index = block.entries, block.rows, slice(None)
    q, dout = problem.queries(block), widen(backend, incoming.of_output[index])
    shift, inverse = result.shift[index], result.inverse[index]
    delta = backend.vecdot(dout, result.out[index])[..., None]
    if incoming.dlse is not None:
        delta = delta - incoming.dlse[index]
    if problem.sinks is not None:
        grads.write_sinks(block, xp.exp(problem.sinks[index] - shift) * inverse, delta)
    # Half precision cannot hold what a total of thousands leaves of dout: there the weights are divided.
    share = 1.0 if problem.is_half else inverse
    factor = problem.scale if grads.dbias is None else 1.0
    into_values = problem.operand(dout * share)
    into_scores, lower_by = dout * (share * factor), delta * (share * factor)
    if _folds(problem):
        into_scores = xp.concat((into_scores, -lower_by), axis=-1)
    into_scores = problem.operand(into_scores)
    dq = grads.dq[index]
    dq[...] = 0
    dk, dv = grads.of_keys(chain)
    for tile in tiles(backend, block, problem.itemsize):
        keys, slope = tile.keys, None
        if bounded:
            weights = packed_k.exp_scores(q, keys, problem.scale)  # (b, r, D) x (b, K, D) -> (b, r, K)
            problem.hide(tile, weights, 0.0)
        else:
            weights = packed_k.scores(q, keys, problem.scale)
            slope = problem.add_bias(tile, weights)
            problem.hide(tile, weights, -xp.inf)
            weights -= shift
            backend.apply(xp.exp, weights)
        if problem.is_half:
            weights *= inverse
        dscores = packed_v.scores(into_scores, keys, 1.0)  # (b, r, D_v + 1) x (b, K, D_v + 1) -> (b, r, K)
        used = weights
        if problem.dropout:
            dropped = problem.dropped(tile, weights)
            dscores *= dropped
            used = weights * dropped
        if not _folds(problem):
            dscores -= lower_by
        dscores *= weights
        if grads.dbias is not None:
            grads.add_to_bias(problem, tile, dscores)
            dscores *= problem.scale
        if slope is not None:
            dscores *= slope
        into_keys = problem.operand(dscores)
        dq += backend.matmul(into_keys, k[:, keys, :], dtype=problem.dtype)  # (b, r, K) x (b, K, D) -> (b, r, D)
        add_product(backend, dk, keys, first, into_keys.mT, q)  # (b, K, r) x (b, r, D) -> (b, K, D)
        add_product(backend, dv, keys, first and dv is not dk, problem.operand(used).mT, into_values)
        first = False
