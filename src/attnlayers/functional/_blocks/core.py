"""One call of attention: its operands, block by block, in the form in which both ways of computing use them.

`kept` keeps the weights for backward, `tiled` makes them again and needs O(T) memory. Whatever can be done on the
(T, D) side of a product is done there, because a block of scores has T times as many numbers as a row of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, sqrt
from typing import NamedTuple

from attnbackends import EMPTY_ROW, Array, Backend

from .._dtypes import wide, widen
from .plan import Block, Chain, Visibility

SAFE = 36.0
"""Largest score that needs no shift: neither exp(36), summed over any row, nor a weight, exp(-36) over the sum of
16,000 times exp(36), leaves float32. A power of two that does costs thirty times the others."""

KEYS = 64
"""Tiles end where blocks of so many keys do, as a library may have them."""


class Incoming(NamedTuple):
    """Gradients of what forward returned, in flat form; None for what was not returned or has none."""

    dout: Array | None  # (B, R, D_v)
    dweights: Array | None  # (B, R, T_k)
    dlse: Array | None  # (B, R, 1)


class Outgoing(NamedTuple):
    """Where backward puts gradients, in the dtype to compute in; one dk and dv for each share of chains."""

    dq: Array  # (B, R, D)
    dk: list[Array]  # (B, T_k, D) each
    dv: list[Array]  # (B, T_k, D_v) each; the very list of dk where keys are the values
    dmask: Array | None  # the flat shape of the mask
    dsinks: Array | None  # (B, R, 1)


class Core(NamedTuple):
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
    sinks: Array | None  # (B, R, 1)
    dropout: float
    seed: int
    bounds: dict[int, bool] | None  # whether norms bound the scores, by a chain's first entry; None: not to be asked
    unit: float  # what scores are multiplied by where no one needs a shift: log2(e) if a power of two is the faster exp
    out: Array | None  # (B, R, D_v), in the dtype to compute in where weights are not kept
    lse: Array | None  # (B, R, 1); None where nothing needs it
    weights: Array | None  # (B, R, T_k), where they are kept

    def bounded(self, chain: Chain) -> bool:
        """Whether the norms of queries and keys say that no score of a chain needs a shift before exp."""
        if self.bounds is None:
            return False
        entries = chain.entries
        if entries.start not in self.bounds:
            norms = [_largest_norm(self.backend, widen(self.backend, x[entries, ...])) for x in (self.q, self.k)]
            self.bounds[entries.start] = abs(self.scale) * norms[0] * norms[1] <= SAFE
        return self.bounds[entries.start]

    def in_bounds(self, block: Block, scores: Array) -> bool:
        """Whether scores, in `unit`, say themselves that none of them needs a shift before exp.

        Hidden ones are overwritten before: what they hold must not decide about the bits of the others.
        """
        if self.bounds is None or 0 in scores.shape:
            return False
        self.hide(block, scores, 0.0)
        xp, most = self.backend.xp, SAFE * self.unit
        low, high = float(xp.min(scores)), float(xp.max(scores))
        if not isfinite(high - low):
            numbers = _numbers(self.backend, scores)
            low, high = float(xp.min(numbers)), float(xp.max(numbers))
        return -most <= low and high <= most

    @property
    def hiding(self) -> Array | None:
        """The mask, if it is boolean."""
        return self.mask if self.mask is not None and self.backend.is_dtype(self.mask.dtype, "bool") else None

    def keys(self, chain: Chain) -> tuple[Array, Array]:
        """Keys and values of a chain's entries, in the dtype to compute in.

        A key that none of its queries attends to comes as 0 if it holds anything but numbers: that would meet a weight
        of 0 in the products, and 0 * NaN is NaN.
        """
        backend, xp = self.backend, self.backend.xp
        k = widen(backend, self.k[chain.entries, ...])
        shared = self.v is None or self.v is self.k
        v = k if shared else widen(backend, self.v[chain.entries, ...])  # type: ignore[index]
        if self._may_spread(k) or (not shared and self._may_spread(v)):
            seen = backend.empty((*k.shape[:2], 1), like=k, dtype=xp.bool)
            seen[...] = False
            for block in chain.blocks:
                seen[:, block.keys, :] |= xp.matrix_transpose(xp.any(self._attended(block), axis=-2, keepdims=True))
            k = _or_zero(backend, seen, k)
            v = k if shared else _or_zero(backend, seen, v)
        return k, v

    def queries(self, block: Block, factor: float) -> Array:
        """The queries of a block times a factor; one that attends to nothing as keys do."""
        q = widen(self.backend, self.q[block.entries, block.rows, :])
        if self._may_spread(q):
            q = _or_zero(self.backend, self.backend.xp.any(self._attended(block), axis=-1, keepdims=True), q)
        return q if factor == 1 else q * factor

    def _may_spread(self, x: Array) -> bool:
        """Whether there are weights of 0 that might meet a NaN or an infinity in x."""
        if self.hiding is None and not self.visibility.leaves_out:
            return False
        xp = self.backend.xp
        return not self.backend.reading_is_free or not bool(xp.all(xp.isfinite(x)))

    def _attended(self, block: Block) -> Array:
        """Which keys of a block its queries attend to, by a boolean mask and by position: (b, r, K)."""
        backend, xp = self.backend, self.backend.xp
        shape = tuple(part.stop - part.start for part in (block.entries, block.rows, block.keys))
        attended = backend.empty(shape, like=self.q, dtype=xp.bool)
        attended[...] = True if self.hiding is None else self.part_of(block, self.hiding)
        for columns, hidden in self.visibility.hidden(block):
            attended[:, :, columns] &= backend.asarray(~hidden, like=attended)
        return attended

    def part_of(self, block: Block, array: Array) -> Array:
        """The part of the mask, or of an array of its shape, that a block needs."""
        entries = block.entries if array.shape[0] > 1 else slice(None)
        rows, count = block.rows, array.shape[1]
        if count == 1:
            rows = slice(None)
        elif count != self.q.shape[1]:  # one mask for all heads that share keys
            rows = slice(rows.start % count, rows.start % count + rows.stop - rows.start)
        keys = block.keys if array.shape[2] > 1 else slice(None)
        return array[entries, rows, keys]

    def bias(self, block: Block, scores: Array, unit: float) -> Array | None:
        """Cap and bias scores in place; returns ``tanh(scores / softcap)``, if they are capped."""
        tanh = None if self.softcap is None else self.cap(scores, unit)
        if self.mask is not None and self.hiding is None:
            scores += widen(self.backend, self.part_of(block, self.mask))
        return tanh

    def exp(self, block: Block, scores: Array, bounded: bool) -> None:
        """Scores become weights that are not yet divided by their sum, in place.

        Bounded ones are in `unit`, and what is hidden among them becomes 0; in others it is -inf before.
        """
        xp = self.backend.xp
        self.backend.apply(xp.exp2 if bounded and self.unit != 1 else xp.exp, scores)
        if bounded:
            self.hide(block, scores, 0.0)

    def hide(self, block: Block, array: Array, value: float) -> None:
        """Write a value to what a boolean mask or a position hides."""
        backend = self.backend
        if self.hiding is not None:
            backend.fill(array, ~self.part_of(block, self.hiding), value)
        for columns, hidden in self.visibility.hidden(block):
            backend.fill(array[:, :, columns], backend.asarray(hidden, like=array), value)

    def cap(self, scores: Array, unit: float) -> Array:
        """Cap scores in place; returns ``tanh(scores / softcap)``."""
        xp, softcap = self.backend.xp, self.softcap * unit  # type: ignore[operator]
        scores *= 1 / softcap
        self.backend.apply(xp.tanh, scores)
        tanh = xp.astype(scores, scores.dtype, copy=True)
        scores *= softcap
        return tanh

    def dropped(self, block: Block, weights: Array) -> Array:
        """What dropout multiplies the weights of a block by, however they are cut into blocks: drawn anew each time."""
        key = 2**64 + self.seed % 2**64  # a stream that no generator of that seed has
        place = block.entries, block.rows, block.keys
        kept = self.backend.uniform(key, place, self.q.shape[1], self.k.shape[1], like=weights) >= self.dropout
        return self.backend.xp.astype(kept, weights.dtype) * (1 / (1 - self.dropout))

    def write_lse(self, block: Block, total: Array, top: Array | None) -> Array:
        """Keep the log-sum-exp of a block's rows; returns `total` with 1 in the place of 0, to divide by."""
        xp = self.backend.xp
        empty = None
        if not self.backend.reading_is_free or not bool(xp.all(total)):
            empty = total == 0
            total = xp.where(empty, xp.ones_like(total), total)
        if self.lse is not None:
            lse = xp.log(total) if top is None else xp.log(total) + top
            if empty is not None:
                lse = xp.where(empty, xp.full_like(lse, EMPTY_ROW), lse)
            self.lse[block.entries, block.rows, :] = lse
        return total

    def add_mask_gradient(self, block: Block, dscores: Array, dmask: Array | None) -> None:
        """Sum the gradient of a block's scores over the axes along which the mask was broadcast."""
        if dmask is not None:
            place = self.part_of(block, dmask)
            axes = tuple(axis for axis in range(3) if place.shape[axis] == 1 and dscores.shape[axis] != 1)
            place += self.backend.xp.sum(dscores, axis=axes, keepdims=True) if axes else dscores

    def write_sinks_gradient(self, block: Block, delta: Array, dsinks: Array | None) -> None:
        """`delta` (b, r, 1) is the sum of weights times their gradients."""
        if dsinks is not None:
            place = block.entries, block.rows, slice(None)
            dsinks[place] = -self.backend.xp.exp(self.sinks[place] - self.lse[place]) * delta  # type: ignore[index]

    def add(self, total: Array, keys: slice, first: bool, a: Array, b: Array) -> None:
        """Add ``a @ b`` to the rows `keys` of a gradient (b, T_k, ·); the first to come finds no value there."""
        if first and keys.stop - keys.start == total.shape[1]:
            self.backend.matmul(a, b, out=total)
            return
        if first:
            total[...] = 0
        total[:, keys, :] += self.backend.matmul(a, b)

    def tiles(self, block: Block) -> list[Block]:
        """A block cut along its keys; at least one."""
        begin, end = block.keys.start, block.keys.stop
        rows = (block.entries.stop - block.entries.start) * (block.rows.stop - block.rows.start)
        size = self.backend.keys_at_once(rows * self.backend.bits(wide(self.backend, self.q.dtype)) // 8)
        count = max(1, -(-(end - begin) // size))
        inner = [begin + (end - begin) * i // count // KEYS * KEYS for i in range(1, count)]
        edges = [begin, *(edge for edge in inner if begin < edge < end), end]
        return [Block(block.entries, block.rows, slice(a, b), block.part) for a, b in pairwise(edges)]


def _or_zero(backend: Backend, keep: Array, x: Array) -> Array:
    zero = backend.empty((1, 1, 1), like=x)
    zero[...] = 0
    return backend.xp.where(keep, x, zero)


def _largest_norm(backend: Backend, x: Array) -> float:
    """Of the rows of x (b, T, D)."""
    xp = backend.xp
    square = float(xp.max(backend.vecdot(x, x)))
    if not isfinite(square):
        numbers = _numbers(backend, x)
        square = float(xp.max(backend.vecdot(numbers, numbers)))
    return sqrt(square)


def _numbers(backend: Backend, x: Array) -> Array:
    """x with 0 for NaN and infinity, which spoil their own rows whatever is done, and are no reason to treat others
    in another way."""
    return _or_zero(backend, backend.xp.isfinite(x), x)
