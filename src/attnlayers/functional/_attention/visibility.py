"""Which keys a query may see by its position; what a mask says comes on top.

Everything here is decided on the host from shapes and options; no array of scores is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Ints = np.ndarray


class Block(NamedTuple):
    """Some rows of queries of some entries, and the keys that at least one of them may see.

    Attributes
    ----------
    entries, rows, keys : slice
    first, last : NumPy array (b or 1, r), or None
        First and last key that each row sees; None where every row sees all `keys`.
    """

    entries: slice
    rows: slice
    keys: slice
    first: Ints | None
    last: Ints | None

    def hidden(self) -> list[tuple[slice, Ints]]:
        """What the rows must not see: columns of the block's scores, and a boolean (b or 1, r, columns)."""
        first, last = self.first, self.last
        if first is None or last is None or first.size == 0:
            return []
        begin, end = self.keys.start, self.keys.stop
        left_end, right_begin = min(int(first.max()), end), max(int(last.min()) + 1, begin)
        # Between the two edges every row sees every key.
        edges = [(begin, left_end), (right_begin, end)] if left_end <= right_begin else [(begin, end)]
        return [
            (
                slice(a - begin, b - begin),
                _outside(np.clip(first - a, 0, b - a), np.clip(last - a, -1, b - a - 1), b - a),
            )
            for a, b in edges
            if a < b
        ]


class Visibility(NamedTuple):
    """Which keys a query may see by its position.

    Attributes
    ----------
    T_q, T_k : int
    groups : int
        Query heads that share a key head; their rows stand one after the other.
    entries_each : int
        Flat entries for each entry of the batch, the first axis.
    start : NumPy array (1,), (N,) or (S,)
        Position of the first query among the keys: one for all, for each entry, or for each packed sequence.
    left, right : int or None
        How many keys before and after its position a query sees; None is unbounded, causal is ``right == 0``.
    lengths : NumPy array (N,) or None
        Valid keys of each entry.
    offsets : (NumPy array (S + 1,), NumPy array (S + 1,)) or None
        Where packed sequences begin and end among queries and keys.
    """

    T_q: int
    T_k: int
    groups: int
    entries_each: int
    start: Ints
    left: int | None
    right: int | None
    lengths: Ints | None
    offsets: tuple[Ints, Ints] | None

    def __eq__(self, other: object) -> bool:
        """Whether it is the same object: calls of one form share it, and what is made of it is remembered by it."""
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def limited(self) -> bool:
        """Whether a position hides anything within a sequence."""
        return not (self.left is None and self.right is None and self.lengths is None)

    @property
    def leaves_out(self) -> bool:
        """Whether a block may hold queries that see nothing by position, or keys that an entry's queries do not see."""
        if not self.limited or self.offsets is not None or self.by_entry:
            return self.limited
        start = int(self.start[0])
        before_all = self.right is not None and start + self.right < 0
        return before_all or (self.left is not None and start + self.T_q - self.left > self.T_k)

    @property
    def by_entry(self) -> bool:
        """Whether entries of the batch see different keys."""
        return self.lengths is not None or (self.offsets is None and len(self.start) > 1)

    def parts(self) -> Iterator[tuple[slice, slice, int]]:
        """Rows that count positions from one key on: those of a query head, or of one packed sequence of it.

        Yields rows, keys, and the number of the sequence.
        """
        for group in range(self.groups):
            top = group * self.T_q
            if self.offsets is None:
                yield slice(top, top + self.T_q), slice(0, self.T_k), 0
                continue
            ends = zip(*(pairwise(map(int, side)) for side in self.offsets), strict=True)
            for sequence, ((a, b), (c, d)) in enumerate(ends):
                yield slice(top + a, top + b), slice(c, d), sequence

    def block(self, entries: slice, part: tuple[slice, slice, int], rows: slice) -> Block:
        """Some rows of a part, with the keys that they see."""
        of_part, keys, sequence = part
        if not self.limited:
            return Block(entries, rows, keys, None, None)
        start = self.start
        if self.offsets is None:
            start = self._of(entries, start)
        elif len(start) > 1:
            start = start[sequence : sequence + 1]
        steps = np.arange(rows.start - of_part.start, rows.stop - of_part.start)
        position = keys.start + start[:, None] + steps
        lengths = None if self.lengths is None else self._of(entries, self.lengths)[:, None]
        first, last = visible_keys(position, keys, self.left, self.right, lengths)
        begin = min(max(int(first.min()), keys.start), keys.stop)
        return Block(entries, rows, slice(begin, max(begin, int(last.max()) + 1)), first, last)

    def _of(self, entries: slice, values: Ints) -> Ints:
        """The values of some flat entries, from one for all or one for each entry of the batch."""
        return values if len(values) == 1 else values[np.arange(entries.start, entries.stop) // self.entries_each]


def visible_keys(
    position: Ints, keys: slice, left: int | None, right: int | None, lengths: Ints | None
) -> tuple[Ints, Ints]:
    """First and last of the `keys` that queries at a position see; none where the first comes after the last.

    Parameters
    ----------
    position : NumPy array (b or 1, r)
    keys : slice
    left, right : int or None
        As in `Visibility`.
    lengths : NumPy array (b or 1, 1) or None
        Valid keys.

    Returns
    -------
    first, last : NumPy arrays (b or 1, r)
    """
    first = np.full_like(position, keys.start) if left is None else np.maximum(position - left, keys.start)
    last = np.full_like(position, keys.stop - 1) if right is None else np.minimum(position + right, keys.stop - 1)
    return first, last if lengths is None else np.minimum(last, lengths - 1)


def _outside(first: Ints, last: Ints, count: int) -> Ints:
    """Which of `count` columns each row does not see, (b or 1, r, count)."""
    if len(first) == len(last) == 1:  # of all entries, and on one diagonal of many blocks
        return _outside_of_rows(first.tobytes(), last.tobytes(), count)
    return _compared(first, last, count)


@lru_cache(maxsize=16)
def _outside_of_rows(first: bytes, last: bytes, count: int) -> Ints:
    first_seen, last_seen = (np.frombuffer(ends, dtype=np.int64)[None, :] for ends in (first, last))
    return _compared(first_seen, last_seen, count)


def _compared(first: Ints, last: Ints, count: int) -> Ints:
    j = np.arange(count)
    return np.asarray((j < first[..., None]) | (j > last[..., None]))
