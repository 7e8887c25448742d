"""Random numbers that depend on a key and a index alone: nothing is kept, and every device draws the same.

A key names a stream of float32 numbers, uniform over [0, 1): those of NumPy's ``Generator(Philox(key=key))``. Philox
makes eight of them from a count, so that any part of a stream can be had without what stands before it.

The number of key t in row r of entry b, among R rows of T keys, is number ``((b * P + t // w) * R + r) * w + t % w`` of
its stream, with panels of ``w = panel(T)`` keys and P of them in a row. It does not depend on how work is cut, and the
rows of a panel stand side by side, for a CPU to draw them at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ._base import Backend

Index = tuple[slice, slice, slice]
"""Entries, rows and keys."""

COUNT = 8
"""Numbers that Philox makes from one count."""

WIDEST = 64
"""Keys of a panel at most; the tiles of `attnlayers` begin at multiples of it."""


def panel(T: int) -> int:
    """Keys of a panel where a row has T of them."""
    return min(WIDEST, COUNT * max(1, -(-T // COUNT)))


def uniform(key: int, index: Index, R: int, T: int) -> np.ndarray:
    """The numbers (b, r, K) of some entries, rows and keys of a stream."""
    entries, rows, keys = index
    w = panel(T)
    first, last = keys.start // w, -(-keys.stop // w)
    b, r, K = (part.stop - part.start for part in index)
    drawn = np.empty((b, last - first, r, w), np.float32)
    size, flat = r * w, drawn.reshape(-1)
    panels = np.arange(entries.start, entries.stop)[:, None] * -(-T // w) + np.arange(first, last)
    begins = ((panels * R + rows.start) * w).reshape(-1)  # where the rows of each panel begin in the stream
    edges = [0, *(np.flatnonzero(np.diff(begins) != size) + 1).tolist(), begins.size]
    for i, j in pairwise(edges if drawn.size else []):
        philox = np.random.Philox(key=key, counter=int(begins[i]) // COUNT)
        np.random.Generator(philox).random(out=flat[i * size : j * size], dtype=np.float32)
    by_row = drawn.transpose(0, 2, 1, 3).reshape(b, r, (last - first) * w)
    return by_row[:, :, keys.start - first * w :][:, :, :K]


class Share(NamedTuple):
    """Rows of a batch that this process has, where several processes share it.

    Attributes
    ----------
    first, rows : int
        Rows ``first`` to ``first + rows - 1`` are here.
    of : int
        Rows of the whole batch.
    """

    first: int
    rows: int
    of: int

    def start(self, entries: int) -> int:
        """Where `entries` entries, the same number for each row, begin among those of the whole batch."""
        return self.first * (entries // self.rows) if self.rows else 0


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def share_of_batch(first: int, rows: int, of: int) -> Iterator[None]:
    """Draw, for arrays whose first axis has so many rows, what rows `first` and on of `of` rows would get.

    Dropout of a batch that several processes share then drops what it drops in one process.
    """
    token = _share.set(Share(first, rows, of))
    try:
        yield
    finally:
        _share.reset(token)


def current_share() -> Share | None:
    """What `share_of_batch` says, or None outside."""
    return _share.get()


class Uniform:
    """The numbers of one stream, call after call. A copy goes on from where the original stands.

    Parameters
    ----------
    backend : Backend
    seed : int
        Of the stream, modulo 2**64.
    """

    def __init__(self, backend: "Backend", seed: int) -> None:
        self.backend, self.key, self.drawn = backend, seed % 2**64, 0

    def __call__(self, shape: tuple[int, ...], like: Any = None) -> Any:
        """Numbers in a shape, on the device of `like`; without one, where new arrays live."""
        count, first = prod(shape), self.drawn
        share = current_share()
        of_all = count
        if share is not None and shape and shape[0] == share.rows:
            row = prod(shape[1:])
            first, of_all = first + share.first * row, share.of * row
        self.drawn += -(-of_all // COUNT) * COUNT
        index = slice(0, 1), slice(0, 1), slice(first, first + count)
        return self.backend.xp.reshape(self.backend.uniform(self.key, index, 1, first + count, like=like), shape)
