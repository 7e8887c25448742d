"""Pairs as padded arrays of ids, in batches.

Nothing here keeps state: a batch is a function of the data set, the seed, the epoch and its place
in the epoch. NumPy holds the order and the lengths on the host; the ids may live on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attnbackends import backend_of

from .errors import DataError, quote
from .vocabulary import Vocabulary

__all__ = ["IGNORE", "Batch", "PairDataset", "pad"]

Array: TypeAlias = Any  # of NumPy or the library that `PairDataset.to` converted to
Ids: TypeAlias = NDArray[np.int64]

IGNORE = -1
"""The label where there is nothing to predict."""


@dataclass(frozen=True, eq=False)
class Batch:
    """N pairs, cut to the longest source (S tokens) and target (T labels) among them.

    Attributes
    ----------
    sources : array (N, S), int64
        Ids of the sources, padded on the right.
    source_mask : array (N, S), bool
        True where `sources` is a token, False where it is padding.
    inputs : array (N, T), int64
        What a decoder reads: ``<bos> t1 .. tn``. Where a target ends before T, ``<eos>`` and
        padding follow; their labels are `IGNORE`.
    labels : array (N, T), int64
        What it should answer to each input: ``t1 .. tn <eos>``, then `IGNORE`.
    num_tokens : int
        How many labels are not `IGNORE`.
    indices : NumPy array (N,), int64
        The places of the pairs in the data set.
    """

    sources: Array
    source_mask: Array
    inputs: Array
    labels: Array
    num_tokens: int
    indices: Ids


class PairDataset:
    """Pairs of texts, encoded and padded once.

    Parameters
    ----------
    pairs : sequence of (source, target)
        At least one pair; texts of at least one token.
    vocabulary : Vocabulary
        Must know all tokens of the texts.
    reverse : bool
        Whether to turn the tokens of each source round. Padding stays on the right.

    Attributes
    ----------
    pairs : list of (source, target)
        The texts as they were given, never reversed.
    sources : array (num, S_max), int64
        Ids of the sources, padded on the right.
    source_lengths : NumPy array (num,), int64
        Tokens in each source.
    targets : array (num, T_max + 2), int64
        ``<bos> t1 .. tn <eos>``, padded on the right.
    target_lengths : NumPy array (num,), int64
        Labels of each target, ``t1 .. tn <eos>``: its tokens and one end, hence n + 1.

    Raises
    ------
    DataError
        Where there is no pair, a text has no tokens or a token is not in the vocabulary.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], vocabulary: Vocabulary, *, reverse: bool = False) -> None:
        if not pairs:
            raise DataError("a data set needs at least one pair, got none")
        sources = [vocabulary.encode(source) for source, _ in pairs]
        targets = [vocabulary.encode(target) for _, target in pairs]
        for side, rows in enumerate((sources, targets)):
            if not all(rows):
                place = rows.index([])
                raise DataError(
                    f"the {('source', 'target')[side]} of pair {place + 1} has no tokens, "
                    f"got {quote(pairs[place][side])}; leave the pair out"
                )
        if reverse:
            sources = [row[::-1] for row in sources]
        self.pairs = list(pairs)
        self.vocabulary = vocabulary
        self.reverse = reverse
        self.sources: Array
        self.targets: Array
        self.sources, self.source_lengths = pad(sources)
        self.targets, lengths = pad([[vocabulary.BOS, *row, vocabulary.EOS] for row in targets])
        self.target_lengths = lengths - 1
        self._asarray: Callable[[Ids], Array] = np.asarray

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"<PairDataset: {len(self)} pairs, sources {self.sources.shape}, targets {self.targets.shape}>"

    def to(self, asarray: Callable[[Ids], Array]) -> Self:
        """The same data set with its ids as arrays of another library or device.

        Parameters
        ----------
        asarray : callable
            Takes a NumPy array, returns the array to use instead: ``cupy.asarray``, for example.
            Called once each for `sources` and `targets`, then for the indices of each batch.
        """
        moved = copy(self)
        moved._asarray = asarray
        moved.sources, moved.targets = asarray(self.sources), asarray(self.targets)
        return moved

    def split(self, held_out: float = 0.1, *, seed: int) -> tuple[Self, Self]:
        """Shuffle the pairs and split them into a part to train on and a part to test with.

        Parameters
        ----------
        held_out : float
            Share of the pairs in the second part, between 0 and 1; rounded down to whole pairs.
        seed : int
            Same seed, same split.

        Returns
        -------
        train, test : PairDataset

        Raises
        ------
        DataError
            Where there are too few pairs to hold one out.
        ValueError
            Where `held_out` or `seed` is out of its range.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"`held_out` must lie between 0 and 1, both excluded, got {held_out}")
        least = math.ceil(round(1 / held_out, 9))  # 1 / (1 / 49) is just over 49
        if len(self) < least:
            raise DataError(
                f"holding out {held_out:g} of the pairs takes at least {least} of them, got {len(self)}; "
                "add pairs or hold out a larger share"
            )
        count = max(1, int(len(self) * held_out))
        order = _shuffle(len(self), seed)
        return self._select(order[:-count]), self._select(order[-count:])

    def num_batches(self, batch_size: int) -> int:
        """How many batches an epoch has, a smaller last one included."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be 1 or more, got {batch_size}")
        return math.ceil(len(self) / batch_size)

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; every pair comes once, and the last batch may be smaller.

        Parameters
        ----------
        batch_size : int
            Pairs in a batch.
        seed : int, optional
            Together with `epoch`, and nothing else, decides the order. None keeps the data set's.
        epoch : int
            Which epoch, from 0.
        start : int
            The batch to begin with, from 0: a run that stopped after k batches goes on with
            ``start=k`` and meets the same batches.

        Raises
        ------
        ValueError
            Where an argument is out of its range; on the call, not with the first batch.
        """
        total = self.num_batches(batch_size)
        if not 0 <= start <= total:
            raise ValueError(f"`start` must lie in 0..{total} for {total} batches, got {start}")
        order = np.arange(len(self)) if seed is None else _shuffle(len(self), seed, epoch)
        return (
            self.batch(order[first : first + batch_size]) for first in range(start * batch_size, len(self), batch_size)
        )

    def batch(self, indices: Ids) -> Batch:
        """The pairs at `indices`, a NumPy array (N,) of places in the data set, as one batch."""
        if not (indices.size and indices.min() >= 0 and indices.max() < len(self)):
            raise ValueError(f"`indices` must be one or more of 0..{len(self) - 1}, got {indices.tolist()}")
        pad = self.vocabulary.PAD
        width, length = int(self.source_lengths[indices].max()), int(self.target_lengths[indices].max())
        rows = self._asarray(indices)
        xp = backend_of(self.sources).xp
        sources = xp.take(self.sources, rows, axis=0)[:, :width]  # (num, S_max) -> (N, S)
        targets = xp.take(self.targets, rows, axis=0)[:, : length + 1]  # (num, T_max + 2) -> (N, T + 1)
        labels = targets[:, 1:]
        return Batch(
            sources=sources,
            source_mask=sources != pad,
            inputs=targets[:, :-1],
            labels=xp.where(labels == pad, xp.full_like(labels, IGNORE), labels),
            num_tokens=int(self.target_lengths[indices].sum()),
            indices=indices,
        )

    def _select(self, indices: Ids) -> Self:
        part = copy(self)
        rows = self._asarray(indices)
        xp = backend_of(self.sources).xp
        part.pairs = [self.pairs[index] for index in indices]
        part.sources, part.targets = (xp.take(ids, rows, axis=0) for ids in (self.sources, self.targets))
        part.source_lengths, part.target_lengths = self.source_lengths[indices], self.target_lengths[indices]
        return part


def _shuffle(size: int, seed: int, *epoch: int) -> Ids:
    """0..size-1 in an order that depends on `seed` and `epoch` alone."""
    if min(seed, *epoch, 0) < 0:
        raise ValueError(f"seed and epoch must be 0 or more, got {', '.join(map(str, (seed, *epoch)))}")
    sequence = np.random.SeedSequence(seed, spawn_key=epoch)
    return np.random.default_rng(sequence).permutation(size)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Rows of ids, padded on the right, and their lengths: (num, longest), (num,)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), lengths.max()), Vocabulary.PAD, dtype=np.int64)
    real = np.arange(padded.shape[1]) < lengths[:, None]  # (num, width)
    padded[real] = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return padded, lengths
