"""Attention, block by block: every option, forward and backward, in O(T) memory.

A block of scores is made, turned into weights, used and forgotten. Backward makes it again from the log-sum-exp
of its rows, unless the weights are so small that they were kept. Whatever can be done on the (T, D) side of a
product is done there, because a block has T times as many numbers as a row of queries:

- the scale goes into the queries, the division by the row sums into the output;
- backward subtracts the log-sum-exp of each row within the product that makes the scores, as one more column of
  the queries against a column of ones, and the same for ``rowsum(dout * out)``;
- where the norms of queries and keys bound every score, exp needs no shift and no maximum is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnbackends import Array, Backend

from ._dtypes import widen
from ._plan import Block, Chain, Visibility

SAFE = 60.0
"""Largest score that needs no shift: exp(60) and exp(-60), summed over any row, are ordinary float32 numbers."""

EMPTY_ROW = 1e30
"""Log-sum-exp of a row that sees nothing: exp(score - EMPTY_ROW) is 0 for every score."""


@dataclass(frozen=True)
class Incoming:
    """Gradients of what forward returned, in flat form; None for what was not returned or has none."""

    dout: Array | None  # (B, R, D_v)
    dweights: Array | None  # (B, R, T_k)
    dlse: Array | None  # (B, R, 1)


@dataclass(frozen=True)
class Outgoing:
    """Where backward puts gradients, in the dtype to compute in; one dk and dv for each share of chains."""

    dq: Array  # (B, R, D)
    dk: list[Array]  # (B, T_k, D) each
    dv: list[Array]  # (B, T_k, D_v) each; the very arrays of dk where keys are the values
    dmask: Array | None  # the flat shape of the mask
    dsinks: Array | None  # (B, R, 1)


@dataclass(frozen=True)
class Core:
    """One call of attention; leading axes are flat (B), heads that share keys stand as further rows (R)."""

    backend: Backend
    q: Array  # (B, R, D)
    k: Array  # (B, T_k, D)
    v: Array | None  # (B, T_k, D_v); None where only weights are asked for
    scale: float
    visibility: Visibility
    chains: Sequence[Chain]
    mask: Array | None  # boolean or additive, (B or 1, R or T_q or 1, T_k or 1)
    softcap: float | None
    sinks: Array | None  # (B, R or 1, 1)
    dropout: float
    seed: int
    bounded: bool  # every |score| is at most SAFE
    out: Array | None  # (B, R, D_v), the dtype to compute in where it is kept for backward
    lse: Array | None  # (B, R, 1)
    weights: Array | None  # (B, R, T_k), where they are kept

    def forward(self, block: Block) -> None:
        """Write the output, log-sum-exp and weights of a block's rows."""
        backend, xp = self.backend, self.backend.xp
        q, k, v, mask = self._operands(block)
        entries, rows, keys = block.entries, block.rows, block.keys
        room = None
        if self.weights is not None:
            room = self.weights[entries, rows, keys]
            for outside in (slice(0, keys.start), slice(keys.stop, None)):
                self.weights[entries, rows, outside] = 0
        scores = backend.matmul(q, xp.matrix_transpose(k), out=room)  # (b, r, D) x (b, D, K) -> (b, r, K)
        self._cap_and_mask(block, scores, mask)
        top, sinks = None, self._sinks_of(block)
        if not self.bounded and keys.start < keys.stop:
            top = xp.max(scores, axis=-1, keepdims=True)
            top = top if sinks is None else xp.maximum(top, sinks)
            top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
            scores -= top
        backend.apply(xp.exp, scores)
        total = xp.sum(scores, axis=-1, keepdims=True)
        if sinks is not None:
            total += xp.exp(sinks if top is None else sinks - top)
        empty = total == 0
        total = xp.where(empty, xp.ones_like(total), total)
        if self.lse is not None:
            lse = xp.log(total) if top is None else xp.log(total) + top
            self.lse[entries, rows, :] = xp.where(empty, xp.full_like(lse, EMPTY_ROW), lse)
        if self.weights is not None:
            scores /= total
        if self.out is not None:
            used = scores * self._dropped(block, scores) if self.dropout else scores
            out = backend.matmul(used, v)  # (b, r, K) x (b, K, D_v) -> (b, r, D_v)
            if self.weights is None:
                out /= total
            self.out[entries, rows, :] = xp.astype(out, self.out.dtype, copy=False)

    def backward(self, chain: Chain, incoming: Incoming, outgoing: Outgoing) -> None:
        """Write or add the gradients of a chain's rows."""
        for i, block in enumerate(chain.blocks):
            self._backward(block, chain.share, i == 0, incoming, outgoing)

    def _backward(self, block: Block, share: int, first: bool, incoming: Incoming, outgoing: Outgoing) -> None:
        backend, xp = self.backend, self.backend.xp
        q, k, v, mask = self._operands(block)
        entries, rows, keys = block.entries, block.rows, block.keys
        dout = None if incoming.dout is None else widen(backend, incoming.dout[entries, rows, :])
        dlse = None if incoming.dlse is None else incoming.dlse[entries, rows, :]
        dropped = tanh = None
        if self.weights is not None:
            weights = self.weights[entries, rows, keys]
            # (b, r, D_v) x (b, D_v, K) -> (b, r, K)
            dweights = xp.zeros_like(weights) if dout is None else backend.matmul(dout, xp.matrix_transpose(v))
            if self.dropout:
                dropped = self._dropped(block, weights)
                dweights *= dropped
            if incoming.dweights is not None:
                dweights += widen(backend, incoming.dweights[entries, rows, keys])
            delta = xp.sum(weights * dweights, axis=-1, keepdims=True)
            delta = delta if dlse is None else delta - dlse
            dweights -= delta
            if self.softcap is not None:
                tanh = self._cap(backend.matmul(q, xp.matrix_transpose(k)))
        else:
            lse = self.lse[entries, rows, :]  # type: ignore[index]
            fold = self.softcap is None
            weights = self._product(q, k, lse) if fold else backend.matmul(q, xp.matrix_transpose(k))
            tanh = self._cap_and_mask(block, weights, mask)
            if not fold:
                weights -= lse
            backend.apply(xp.exp, weights)
            delta = xp.sum(dout * self.out[entries, rows, :], axis=-1, keepdims=True)  # type: ignore[index]
            delta = delta if dlse is None else delta - dlse
            if self.dropout:
                dropped = self._dropped(block, weights)
                dweights = backend.matmul(dout, xp.matrix_transpose(v))
                dweights *= dropped
                dweights -= delta
            else:
                dweights = self._product(dout, v, delta)
        dscores = dweights
        dscores *= weights
        if outgoing.dsinks is not None:
            sinks = self._sinks_of(block)
            lse = self.lse[entries, rows, :]  # type: ignore[index]
            outgoing.dsinks[entries, rows, :] = -xp.exp(sinks - lse) * delta
        if outgoing.dmask is not None:
            place = self._part_of(block, outgoing.dmask)
            place += _summed_to(xp, dscores, tuple(place.shape))
        if tanh is not None:
            dscores *= 1 - tanh * tanh
        dq = backend.matmul(dscores, k)  # (b, r, K) x (b, K, D) -> (b, r, D)
        if self.scale != 1:
            dq *= self.scale
        outgoing.dq[entries, rows, :] = dq
        into_keys = (xp.matrix_transpose(dscores), q)  # (b, K, r) x (b, r, D) -> (b, K, D)
        dk = outgoing.dk[share][entries, ...]
        self._add(dk, keys, first, *into_keys)
        if outgoing.dv:
            used = weights if dropped is None else weights * dropped
            dv = outgoing.dv[share][entries, ...]
            same = outgoing.dv is outgoing.dk
            self._add(dv, keys, first and not same, xp.matrix_transpose(used), dout)

    def _product(self, a: Array, b: Array, minus: Array) -> Array:
        """``a @ b.T - minus`` in one product: a (b, r, D), b (b, K, D), minus (b, r, 1) -> (b, r, K)."""
        xp = self.backend.xp
        one = xp.ones_like(b[:, :, :1])
        return self.backend.matmul(xp.concat((a, -minus), axis=-1), xp.matrix_transpose(xp.concat((b, one), axis=-1)))

    def _add(self, total: Array, keys: slice, first: bool, a: Array, b: Array) -> None:
        """Add ``a @ b`` to the rows `keys` of a gradient (b, T_k, ·); the first to come finds no value there."""
        if first and keys.stop - keys.start == total.shape[1]:
            self.backend.matmul(a, b, out=total)
            return
        if first:
            total[...] = 0
        total[:, keys, :] += self.backend.matmul(a, b)

    # -- a block's operands

    def _part_of(self, block: Block, array: Array) -> Array:
        """The part of the mask, or of an array of its shape, that a block needs."""
        entries = block.entries if array.shape[0] > 1 else slice(None)
        rows, count = block.rows, array.shape[1]
        if count == 1:
            rows = slice(None)
        elif count != self.q.shape[1]:  # one mask for all heads that share keys
            rows = slice(rows.start % count, rows.start % count + rows.stop - rows.start)
        keys = block.keys if array.shape[2] > 1 else slice(None)
        return array[entries, rows, keys]

    def _sinks_of(self, block: Block) -> Array | None:
        if self.sinks is None:
            return None
        return self.sinks[block.entries, block.rows if self.sinks.shape[1] > 1 else slice(None), :]

    def _operands(self, block: Block) -> tuple[Array, Array, Array, Array | None]:
        """Queries (scaled), keys, values and mask of a block, in the dtype to compute in.

        A query that attends to nothing, and a key that no query attends to, come as 0: whatever they hold would
        meet a weight of 0 in the products, and 0 * NaN is NaN.
        """
        backend, xp = self.backend, self.backend.xp
        q = widen(backend, self.q[block.entries, block.rows, :])
        k = widen(backend, self.k[block.entries, block.keys, :])
        shared = self.v is None or self.v is self.k
        v = k if shared else widen(backend, self.v[block.entries, block.keys, :])  # type: ignore[index]
        mask = None if self.mask is None else self._part_of(block, self.mask)
        lengths = self.visibility.lengths
        seen = None
        if mask is not None and xp.isdtype(mask.dtype, "bool"):
            q = _or_zero(backend, xp.any(mask, axis=-1, keepdims=True), q)
            seen = xp.matrix_transpose(xp.any(mask, axis=-2, keepdims=True))  # (b or 1, K or 1, 1)
        if lengths is not None and block.entries.stop - block.entries.start > 1:
            own = backend.asarray(self.visibility.lengths_of(block.entries))
            valid = (block.keys.start + backend.arange(k.shape[1], like=self.k))[None, :] < own[:, None]
            seen = valid[..., None] if seen is None else seen & valid[..., None]
        if seen is not None:
            k = _or_zero(backend, seen, k)
            v = k if shared else _or_zero(backend, seen, v)
        return (q if self.scale == 1 else q * self.scale), k, v, mask

    def _cap_and_mask(self, block: Block, scores: Array, mask: Array | None) -> Array | None:
        """Cap, bias and hide, in place; returns what the cap's gradient needs."""
        backend, xp = self.backend, self.backend.xp
        tanh = None if self.softcap is None else self._cap(scores)
        if mask is not None:
            if xp.isdtype(mask.dtype, "bool"):
                backend.fill(scores, ~mask, -xp.inf)
            else:
                scores += widen(backend, mask)
        for columns, hidden in self.visibility.hidden(block):
            backend.fill(scores[:, :, columns], backend.asarray(hidden), -xp.inf)
        return tanh

    def _cap(self, scores: Array) -> Array:
        """Cap scores in place; returns ``tanh(scores / softcap)``."""
        xp = self.backend.xp
        scores *= 1 / self.softcap  # type: ignore[operator]
        self.backend.apply(xp.tanh, scores)
        tanh = xp.astype(scores, scores.dtype, copy=True)
        scores *= self.softcap
        return tanh

    def _dropped(self, block: Block, weights: Array) -> Array:
        """What dropout multiplies the weights of a block by: drawn anew, from a seed that is the block's own."""
        place = block.entries.start * self.q.shape[1] + block.rows.start
        draw = self.backend.generator((self.seed * 1_000_003 + place) % 2**63)
        kept = draw(tuple(weights.shape)) >= self.dropout
        return self.backend.xp.astype(kept, weights.dtype) * (1 / (1 - self.dropout))


def _or_zero(backend: Backend, keep: Array, x: Array) -> Array:
    zero = backend.empty((1, 1, 1), like=x)
    zero[...] = 0
    return backend.xp.where(keep, x, zero)


def _summed_to(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which `shape` has 1."""
    axes = tuple(axis for axis, length in enumerate(shape) if length == 1 and x.shape[axis] != 1)
    return xp.sum(x, axis=axes, keepdims=True) if axes else x
