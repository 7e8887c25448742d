"""Attention in O(T) memory: a tile of scores is made, turned into weights, used and forgotten.

- The division by the row sums goes into the output.
- Where the norms of queries and keys bound every score, exp needs no shift, and is a power of two where a library has
  a faster one; else the shift grows from tile to tile, and what was summed with an old one is scaled to the new.
- Backward makes the weights again from the log-sum-exp of their rows. It subtracts that within the product that
  makes the scores, as one more column of the queries against a row of ones, and ``rowsum(dout * out)`` likewise.
"""

from __future__ import annotations

from typing import Any

from attnbackends import Array

from .._dtypes import widen
from .core import Core, Incoming, Outgoing
from .plan import Block, Chain


def forward(core: Core, chain: Chain) -> None:
    """Write the output and the log-sum-exp of a chain's rows."""
    k, v = core.keys(chain)
    arranged = core.backend.arrange_keys(k)
    bounded = core.bounded(chain)
    for block in chain.blocks:
        _forward(core, block, arranged, v, bounded)


def _forward(core: Core, block: Block, arranged: Any, v: Array, bounded: bool) -> None:
    backend, xp = core.backend, core.backend.xp
    place = block.entries, block.rows, slice(None)
    unit = core.unit if bounded else 1.0
    q = core.queries(block, core.scale * unit)
    out = total = top = None
    for tile in core.tiles(block):
        scores = backend.scores(q, arranged, tile.keys)  # (b, r, D) x (b, K, D) -> (b, r, K)
        core.bias(tile, scores, unit)
        if not bounded and tile.keys.start < tile.keys.stop:
            core.hide(tile, scores, -xp.inf)
            higher = xp.max(scores, axis=-1, keepdims=True)
            if top is not None:
                higher = xp.maximum(higher, top)
                # Where nothing was seen before, nothing was summed that could be scaled.
                factor = xp.where(top == -xp.inf, xp.zeros_like(top), xp.exp(top - _finite(xp, higher)))
                total *= factor
                out *= factor
            top = higher
            scores -= _finite(xp, top)
        core.exp(tile, scores, bounded)
        tile_total = backend.sum_rows(scores)
        if core.dropout:
            scores *= core.dropped(tile, scores)
        tile_out = backend.matmul(scores, v[:, tile.keys, :])  # (b, r, K) x (b, K, D_v) -> (b, r, D_v)
        if out is None or total is None:
            out, total = tile_out, tile_total
        else:
            out += tile_out
            total += tile_total
    shift = None if top is None else _finite(xp, top)
    if core.sinks is not None:
        sinks = core.sinks[place]
        before = xp.zeros_like(sinks) if shift is None else shift
        shift = xp.maximum(before, sinks)
        factor = xp.exp(before - shift)
        out *= factor
        total *= factor
        total += xp.exp(sinks - shift)
    out /= core.write_lse(block, total, shift)
    core.out[place] = out  # type: ignore[index]


def backward(core: Core, chain: Chain, incoming: Incoming, outgoing: Outgoing) -> None:
    """Write or add the gradients of a chain's rows."""
    k, v = core.keys(chain)
    k1 = core.backend.arrange_keys(k, ones=True)
    v1 = k1 if v is k else core.backend.arrange_keys(v, ones=True)
    bounded = core.bounded(chain)
    for i, block in enumerate(chain.blocks):
        _backward(core, block, k, k1, v1, bounded, chain.share, i == 0, incoming, outgoing)


def _backward(
    core: Core,
    block: Block,
    k: Array,
    k1: Any,
    v1: Any,
    bounded: bool,
    share: int,
    first: bool,
    incoming: Incoming,
    outgoing: Outgoing,
) -> None:
    backend, xp = core.backend, core.backend.xp
    place = block.entries, block.rows, slice(None)
    q, dout = core.queries(block, core.scale), widen(backend, incoming.dout[place])  # type: ignore[index]
    lse = core.lse[place]  # type: ignore[index]
    delta = backend.vecdot(dout, core.out[place])[..., None]  # type: ignore[index]
    if incoming.dlse is not None:
        delta = delta - incoming.dlse[place]
    core.write_sinks_gradient(block, delta, outgoing.dsinks)
    folded = core.softcap is None
    unit = core.unit if bounded else 1.0
    if unit != 1:
        lse = lse * unit
    minus_lse = -lse if folded else xp.zeros_like(lse)
    minus_delta = xp.zeros_like(delta) if core.dropout else -delta
    q1 = xp.concat((q if unit == 1 else q * unit, minus_lse), axis=-1)
    dout1 = xp.concat((dout, minus_delta), axis=-1)
    dq: Array = None
    for tile in core.tiles(block):
        keys = tile.keys
        weights = backend.scores(q1, k1, keys)  # (b, r, D + 1) x (b, K, D + 1) -> (b, r, K)
        tanh = core.bias(tile, weights, unit)
        if not bounded:
            core.hide(tile, weights, -xp.inf)
        if not folded:
            weights -= lse
        core.exp(tile, weights, bounded)
        dscores = backend.scores(dout1, v1, keys)  # (b, r, D_v + 1) x (b, K, D_v + 1) -> (b, r, K)
        used = weights
        if core.dropout:
            dropped = core.dropped(tile, weights)
            dscores *= dropped
            dscores -= delta
            used = weights * dropped
        dscores *= weights
        core.add_mask_gradient(tile, dscores, outgoing.dmask)
        if tanh is not None:
            dscores *= 1 - tanh * tanh
        tile_dq = backend.matmul(dscores, k[:, keys, :])  # (b, r, K) x (b, K, D) -> (b, r, D)
        if dq is None:
            dq = tile_dq
        else:
            dq += tile_dq
        core.add(outgoing.dk[share][block.entries, ...], keys, first, xp.matrix_transpose(dscores), q)
        first_value = first and outgoing.dv is not outgoing.dk
        core.add(outgoing.dv[share][block.entries, ...], keys, first_value, xp.matrix_transpose(used), dout)
        first = False
    outgoing.dq[place] = dq if core.scale == 1 else dq * core.scale


def _finite(xp: Any, top: Array) -> Array:
    return xp.where(top == -xp.inf, xp.zeros_like(top), top)
