"""Which queries may see which keys, and the blocks in which scores are worked through.

Everything here is decided on the host from shapes and options; no array of scores is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from attnbackends import Backend, visible_keys

FEW = 4
"""Chains of blocks to make where there are fewer entries: what a small machine can run side by side."""

CHAIN_WORK = 24_000_000
"""Operations of its products, and bytes that it reads, that make a chain worth a thread: 0.2 ms of one core, which is
what the calls around them take."""

Ints = np.ndarray


class Block(NamedTuple):
    """Some rows of queries of some entries, and the keys that at least one of them may see."""

    entries: slice
    rows: slice
    keys: slice
    part: slice
    """The keys that positions count from: all, or those of a packed sequence."""


class Chain(NamedTuple):
    """Blocks that go one after the other, because they add to the gradients of the same keys.

    Attributes
    ----------
    entries : slice
    share : int
        Chains of one number touch different entries; those of one entry have different numbers.
    blocks : tuple of Block
    """

    entries: slice
    share: int
    blocks: tuple[Block, ...]


class Visibility(NamedTuple):
    """Which keys a query may see by its position; what a mask says comes on top.

    Attributes
    ----------
    T_q, T_k : int
    entries_each : int
        Flat entries for each entry of the batch, the first axis.
    groups : int
        Query heads that share a key head; their rows stand one after the other.
    start : NumPy array (1,), (N,) or (S,)
        Position of the first query among the keys: of all, of each entry, of each packed sequence.
    left, right : int or None
        How far before and after its position a query sees; None is unbounded.
    lengths : NumPy array (N,) or None
        Valid keys of each entry.
    offsets : (NumPy array (S + 1,), NumPy array (S + 1,)) or None
        Where packed sequences begin and end among queries and keys.
    spans : dict
        Those that are the same for all entries, to be found once; empty to begin with.
    """

    T_q: int
    T_k: int
    entries_each: int
    groups: int
    start: Ints
    left: int | None
    right: int | None
    lengths: Ints | None
    offsets: tuple[Ints, Ints] | None
    spans: dict[tuple[int, ...], tuple[Ints, Ints]]

    @property
    def limited(self) -> bool:
        """Whether anything is hidden at all."""
        return not (self.left is None and self.right is None and self.lengths is None)

    @property
    def leaves_out(self) -> bool:
        """Whether a block may hold queries that see nothing by position, or keys that an entry's queries do not see."""
        if not self.limited or self.offsets is not None or self.lengths is not None or len(self.start) > 1:
            return self.limited
        before_all = self.right is not None and int(self.start[0]) + self.right < 0
        return before_all or (self.left is not None and int(self.start[0]) + self.T_q - self.left > self.T_k)

    def row_parts(self) -> Iterator[tuple[slice, slice]]:
        """Rows that see one range of keys, with that range: all of a query head, or a packed sequence of one."""
        for group in range(self.groups):
            first = group * self.T_q
            if self.offsets is None:
                yield slice(first, first + self.T_q), slice(0, self.T_k)
            else:
                for (a, b), (c, d) in zip(*(pairwise(map(int, ends)) for ends in self.offsets), strict=True):
                    yield slice(first + a, first + b), slice(c, d)

    def span(self, entries: slice, rows: slice, keys: slice) -> tuple[Ints, Ints]:
        """First and last visible key of each row, (b or 1, R) each; `keys` is the range of the rows' part."""
        if self.lengths is not None or len(self.start) > 1:
            return self._span(entries, rows, keys)
        place = rows.start, rows.stop, keys.start, keys.stop
        if place not in self.spans:
            self.spans[place] = self._span(entries, rows, keys)
        return self.spans[place]

    def _span(self, entries: slice, rows: slice, keys: slice) -> tuple[Ints, Ints]:
        row = rows.start % self.T_q if self.T_q else 0
        if self.offsets is None:
            start = self._of(entries, self.start)
        else:
            begins = self.offsets[0]
            sequence = int(np.searchsorted(begins, row, side="right")) - 1
            row -= int(begins[sequence])
            start = self.start if len(self.start) == 1 else self.start[sequence : sequence + 1]
        position = keys.start + start[:, None] + np.arange(row, row + rows.stop - rows.start)
        lengths = None if self.lengths is None else self._of(entries, self.lengths)[:, None]
        return visible_keys(position, keys, self.left, self.right, lengths)

    def hidden(self, block: Block) -> list[tuple[slice, Ints]]:
        """What the rows of a block must not see: columns of its scores, and a boolean (b or 1, R, columns)."""
        if not self.limited or block.rows.start == block.rows.stop:
            return []
        first, last = self.span(block.entries, block.rows, block.part)
        k0, k1 = block.keys.start, block.keys.stop
        left_end = min(int(first.max()), k1)
        right_begin = max(int(last.min()) + 1, k0)
        found = []
        # Between the two edges every row sees every key.
        for a, b in [(k0, left_end), (right_begin, k1)] if left_end <= right_begin else [(k0, k1)]:
            if a < b:
                ends = np.clip(first - a, 0, b - a), np.clip(last - a, -1, b - a - 1)
                if len(first) == len(last) == 1:  # of all entries, and on one diagonal of many blocks
                    outside = _outside(ends[0].tobytes(), ends[1].tobytes(), b - a)
                else:
                    outside = _compared(*ends, b - a)
                found.append((slice(a - k0, b - k0), outside))
        return found

    def _of(self, entries: slice, values: Ints | None) -> Ints:
        if values is None:
            return np.zeros(1, np.int64)
        if len(values) == 1:
            return values
        of_batch: Ints = values[np.arange(entries.start, entries.stop) // self.entries_each]
        return of_batch


def _compared(first: Ints, last: Ints, count: int) -> Ints:
    """Which of `count` columns each row does not see, (b or 1, R, count)."""
    j = np.arange(count)
    return np.asarray((j < first[..., None]) | (j > last[..., None]))


@lru_cache(maxsize=16)
def _outside(first: bytes, last: bytes, count: int) -> Ints:
    """As `_compared`, of the same rows for all entries."""
    first_seen, last_seen = (np.frombuffer(ends, dtype=np.int64)[None, :] for ends in (first, last))
    return _compared(first_seen, last_seen, count)


def plan(
    backend: Backend, visibility: Visibility, count: int, row_bytes: int, entry_bytes: int, entry_flops: int
) -> tuple[Chain, ...]:
    """Cut the scores of `count` entries into blocks.

    Parameters
    ----------
    backend : Backend
        Says how much to work on at a time.
    visibility : Visibility
    count : int
        Flat entries.
    row_bytes : int
        Of a row of scores.
    entry_bytes : int
        Of everything that belongs to an entry.
    entry_flops : int
        Of its products in forward.

    Returns
    -------
    tuple of Chain
        Together they cover every row once.
    """
    at_once = backend.rows_at_once(row_bytes)
    if visibility.offsets is None and visibility.T_q <= at_once:
        entries = backend.chunks(count, entry_bytes, at_least=-(-CHAIN_WORK // max(1, entry_flops + entry_bytes)))
    else:
        entries = [slice(b, b + 1) for b in range(count)]
    if visibility.limited or visibility.offsets is not None:
        return _chains(visibility, entries, at_once)
    ends = tuple([some.stop for some in entries])
    return _chains_that_see_all(visibility.T_q, visibility.T_k, visibility.groups, ends, at_once)


@lru_cache(maxsize=64)
def _chains_that_see_all(T_q: int, T_k: int, groups: int, ends: tuple[int, ...], at_once: int) -> tuple[Chain, ...]:
    """Of queries that see every key: one call after the other wants the same."""
    visibility = Visibility(T_q, T_k, 1, groups, np.zeros(1, np.int64), None, None, None, None, {})
    return _chains(visibility, [slice(a, b) for a, b in pairwise((0, *ends))], at_once)


def _chains(visibility: Visibility, entries: list[slice], at_once: int) -> tuple[Chain, ...]:
    parts = list(visibility.row_parts())
    chains: list[Chain] = []
    for some in entries:
        blocks = [
            Block(some, rows, _seen(visibility, some, rows, keys), keys)
            for part, keys in parts
            for rows in _cut(part, at_once)
            if rows.start < rows.stop
        ] or [Block(some, slice(0, 0), slice(0, 0), slice(0, 0))]  # no query: the gradient of the keys is still 0
        shares = max(1, min(len(blocks), -(-FEW // len(entries))))
        edges = [len(blocks) * i // shares for i in range(shares + 1)]
        chains += [Chain(some, i, tuple(blocks[a:b])) for i, (a, b) in enumerate(pairwise(edges))]
    return tuple(chains)


def _seen(visibility: Visibility, entries: slice, rows: slice, keys: slice) -> slice:
    """The keys that at least one of the rows sees."""
    if not visibility.limited:
        return keys
    first, last = visibility.span(entries, rows, keys)
    begin = min(max(int(first.min()), keys.start), keys.stop)
    return slice(begin, max(begin, int(last.max()) + 1))


def _cut(rows: slice, size: int) -> list[slice]:
    """`rows` in slices of about equal length, `size` at most."""
    length = rows.stop - rows.start
    pieces = max(1, -(-length // size))
    edges = [rows.start + length * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
