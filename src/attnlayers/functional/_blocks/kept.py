"""Attention that keeps its weights: for short sequences, and where the weights are asked for."""

from __future__ import annotations

from attnbackends import Array

from .._dtypes import widen
from .core import Core, Incoming, Outgoing
from .plan import Block, Chain


def forward(core: Core, chain: Chain) -> None:
    """Write the weights, the log-sum-exp and the output of a chain's rows."""
    k, v = core.keys(chain)
    for block in chain.blocks:
        _forward(core, block, k[:, block.keys, :], v[:, block.keys, :])


def _forward(core: Core, block: Block, k: Array, v: Array) -> None:
    backend, xp = core.backend, core.backend.xp
    entries, rows, keys = block.entries, block.rows, block.keys
    for outside in (slice(0, keys.start), slice(keys.stop, core.k.shape[1])):
        if outside.start < outside.stop:
            core.weights[entries, rows, outside] = 0  # type: ignore[index]
    weights = core.weights[entries, rows, keys]  # type: ignore[index]
    unit = core.unit
    of_queries, of_scores = _factors(core, block, unit)
    # (b, r, D) x (b, D, K) -> (b, r, K)
    backend.matmul(core.queries(block, of_queries), xp.matrix_transpose(k), out=weights)
    if of_scores != 1:
        weights *= of_scores
    core.bias(block, weights, unit)
    top = None
    sinks = None if core.sinks is None else core.sinks[entries, rows, :]
    if core.in_bounds(block, weights):
        core.exp(block, weights, bounded=True)
    elif keys.start < keys.stop:
        if unit != 1:
            weights *= 1 / unit
        core.hide(block, weights, -xp.inf)
        top = xp.max(weights, axis=-1, keepdims=True)
        top = top if sinks is None else xp.maximum(top, sinks)
        top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
        weights -= top
        core.exp(block, weights, bounded=False)
    total = backend.sum_rows(weights)
    if sinks is not None:
        total += xp.exp(sinks if top is None else sinks - top)
    weights /= core.write_lse(block, total, top)
    if core.out is not None:
        used = weights * core.dropped(block, weights) if core.dropout else weights
        _product_into(core, core.out[entries, rows, :], used, v)  # (b, r, K) x (b, K, D_v) -> (b, r, D_v)


def backward(core: Core, chain: Chain, incoming: Incoming, outgoing: Outgoing) -> None:
    """Write or add the gradients of a chain's rows."""
    k, v = core.keys(chain)
    for i, block in enumerate(chain.blocks):
        _backward(core, block, k[:, block.keys, :], v[:, block.keys, :], chain.share, i == 0, incoming, outgoing)


def _backward(
    core: Core, block: Block, k: Array, v: Array, share: int, first: bool, incoming: Incoming, outgoing: Outgoing
) -> None:
    backend, xp = core.backend, core.backend.xp
    entries, rows, keys = block.entries, block.rows, block.keys
    of_queries, of_scores = _factors(core, block, 1.0)
    q = core.queries(block, of_queries)
    weights = core.weights[entries, rows, keys]  # type: ignore[index]
    dropped = core.dropped(block, weights) if core.dropout else None
    dout = None if incoming.dout is None else widen(backend, incoming.dout[entries, rows, :])
    # (b, r, D_v) x (b, D_v, K) -> (b, r, K)
    dweights = xp.zeros_like(weights) if dout is None else backend.matmul(dout, xp.matrix_transpose(v))
    if dropped is not None:
        dweights *= dropped
    if incoming.dweights is not None:
        dweights += widen(backend, incoming.dweights[entries, rows, keys])
    delta = backend.vecdot(weights, dweights)[..., None]
    if incoming.dlse is not None:
        delta = delta - incoming.dlse[entries, rows, :]
    dweights -= delta
    dweights *= weights
    dscores = dweights
    core.write_sinks_gradient(block, delta, outgoing.dsinks)
    core.add_mask_gradient(block, dscores, outgoing.dmask)
    if core.softcap is not None:
        tanh = core.cap(backend.matmul(core.queries(block, core.scale), xp.matrix_transpose(k)), 1.0)
        dscores *= 1 - tanh * tanh
    if of_scores != 1:
        dscores *= of_scores
    dq = outgoing.dq[entries, rows, :]
    _product_into(core, dq, dscores, k)  # (b, r, K) x (b, K, D) -> (b, r, D)
    if of_queries != 1:
        dq *= of_queries
    used = weights if dropped is None else weights * dropped
    shared = outgoing.dv is outgoing.dk
    dk = outgoing.dk[share][entries, ...]
    if shared and rows.stop - rows.start < q.shape[-1]:  # one product instead of two and their sum
        both, of_both = xp.concat((dscores, used), axis=1), xp.concat((q, dout), axis=1)
        core.add(dk, keys, first, xp.matrix_transpose(both), of_both)  # (b, K, 2 r) x (b, 2 r, D) -> (b, K, D)
        return
    core.add(dk, keys, first, xp.matrix_transpose(dscores), q)
    if outgoing.dv:
        core.add(outgoing.dv[share][entries, ...], keys, first and not shared, xp.matrix_transpose(used), dout)


def _factors(core: Core, block: Block, unit: float) -> tuple[float, float]:
    """What to multiply queries by, and what their scores, for the scale in a unit: the array that is smaller."""
    factor = core.scale * unit
    return (1.0, factor) if block.keys.stop - block.keys.start < core.q.shape[-1] else (factor, 1.0)


def _product_into(core: Core, place: Array, a: Array, b: Array) -> None:
    """``place[...] = a @ b``, rounded to the dtype of the place."""
    if place.dtype == a.dtype:
        core.backend.matmul(a, b, out=place)
    else:
        place[...] = core.backend.matmul(a, b, dtype=place.dtype)
