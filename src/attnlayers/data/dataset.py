"""Pairs as ids, in padded batches.

Nothing here keeps state: a batch is a function of the data set, the seed, the epoch and its place
in the epoch. Ids live on the host; a batch is made there, and moved to the device as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, TypeAlias

import numpy as np

from .batches import Ids, batches_by_length, shuffled
from .errors import DataError, quote
from .split import Split, split_pairs
from .vocabulary import Vocabulary

__all__ = ["IGNORE", "Batch", "PairDataset", "pad"]

Array: TypeAlias = Any  # of NumPy or the library that `PairDataset.to` converts to

IGNORE = -1
"""The label where there is nothing to predict."""


@dataclass(frozen=True, eq=False)
class Batch:
    """N pairs, padded to the longest source (S tokens) and target (T labels) among them.

    Where several processes share a batch, it is the N pairs of one of them, padded as the whole batch is.

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
    first, whole, whole_tokens : int
        Which pair of the whole batch is the first of these, and N and `num_tokens` of the whole batch.
    """

    sources: Array
    source_mask: Array
    inputs: Array
    labels: Array
    num_tokens: int
    indices: Ids
    first: int
    whole: int
    whole_tokens: int


class PairDataset:
    """Pairs of texts, encoded once.

    Parameters
    ----------
    pairs : sequence of (source, target)
        At least one pair; texts of at least one token.
    vocabulary : Vocabulary
        Must know all tokens of the texts, or have ``<unk>``.
    reverse : bool
        Whether to turn the tokens of each source round. Padding stays on the right.

    Attributes
    ----------
    pairs : list of (source, target)
        The texts as they were given, never reversed.
    sources, targets : list of NumPy array, int64
        The ids of each text.
    source_lengths, target_lengths : NumPy array (num,), int64
        Tokens in each text.

    Raises
    ------
    DataError
        Where there is no pair, a text has no tokens or a token is not in the vocabulary.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], vocabulary: Vocabulary, *, reverse: bool = False) -> None:
        if not pairs:
            raise DataError("a data set needs at least one pair, got none")
        sides = [[np.array(vocabulary.encode(pair[side]), dtype=np.int64) for pair in pairs] for side in (0, 1)]
        for side, rows in enumerate(sides):
            for place, row in enumerate(rows):
                if not len(row):
                    raise DataError(
                        f"the {('source', 'target')[side]} of pair {place + 1} has no tokens, "
                        f"got {quote(pairs[place][side])}; leave the pair out"
                    )
        sources, self.targets = sides
        self.sources = [row[::-1] for row in sources] if reverse else sources
        self.pairs = list(pairs)
        self.vocabulary = vocabulary
        self.reverse = reverse
        self.source_lengths, self.target_lengths = (
            np.array([len(row) for row in rows], dtype=np.int64) for rows in (self.sources, self.targets)
        )
        self._asarray: Callable[[np.ndarray], Array] = np.asarray

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        longest = f"sources up to {self.source_lengths.max()} tokens, targets up to {self.target_lengths.max()}"
        return f"<PairDataset: {len(self)} pairs, {longest}>"

    def to(self, asarray: Callable[[np.ndarray], Array]) -> Self:
        """The same data set with batches as arrays of another library or device.

        Parameters
        ----------
        asarray : callable
            Takes a NumPy array, returns the array to use instead: ``cupy.asarray``, for example.
            Called for each of the four arrays of a batch.
        """
        moved = copy(self)
        moved._asarray = asarray
        return moved

    def split(self, held_out: float = 0.1, *, seed: int, by: Split = "source") -> tuple[Self, Self]:
        """Shuffle the pairs and split them into a part to train on and a part to test with.

        Parameters, errors and what is held out are those of `split_pairs`.

        Returns
        -------
        train, test : PairDataset
        """
        train, test = split_pairs(self.pairs, held_out, seed=seed, by=by)
        return self.select(train), self.select(test)

    def select(self, indices: Ids) -> Self:
        """The pairs at these places, in this order; at least one."""
        if not len(indices):
            raise DataError("a data set needs at least one pair, got none")
        part = copy(self)
        part.pairs, part.sources, part.targets = (
            [rows[index] for index in indices] for rows in (self.pairs, self.sources, self.targets)
        )
        part.source_lengths, part.target_lengths = self.source_lengths[indices], self.target_lengths[indices]
        return part

    @property
    def lengths(self) -> Ids:
        """Tokens in the longer text of each pair: (num,)."""
        return np.maximum(self.source_lengths, self.target_lengths)

    def num_batches(self, batch_size: int) -> int:
        """How many batches an epoch has; the same number in each."""
        return len(batches_by_length(self.lengths, batch_size))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        start: int = 0,
        step: int = 1,
        share: Callable[[int], slice] | None = None,
    ) -> Iterator[Batch]:
        """The batches of one epoch, of pairs of like length; every pair comes once.

        Parameters
        ----------
        batch_size : int
            Pairs in a batch at most; there are fewer where they are much longer than most.
        seed : int, optional
            Shuffles the pairs, differently in each epoch. Without it they come from short to long.
        epoch : int
            Which epoch, from 0 on.
        start : int
            How many batches to skip, for an epoch that was interrupted.
        step : int
            Then every batch of so many.
        share : callable, optional
            Of a batch of so many pairs, which are wanted, as `attnlayers.distributed.Ranks.share` says it.

        Raises
        ------
        ValueError
            Where an argument is out of its range; raised by the call, before the first batch.
        """
        rng = None if seed is None else shuffled(seed, epoch)
        parts = batches_by_length(self.lengths, batch_size, rng)
        if not 0 <= start <= len(parts):
            raise ValueError(f"`start` must lie in 0..{len(parts)} for {len(parts)} batches, got {start}")
        wanted = islice(parts, start, None, step)
        return (self.batch(indices, share(len(indices)) if share else None) for indices in wanted)

    def batch(self, indices: Ids, share: slice | None = None) -> Batch:
        """The batch of the pairs at `indices`, or a share of it.

        Raises
        ------
        ValueError
            Where there is no index, or one is not the place of a pair.
        """
        indices = np.asarray(indices)
        if not indices.size or indices.min() < 0 or indices.max() >= len(self):
            raise ValueError(f"`indices` must be one or more of 0..{len(self) - 1}, got {indices.tolist()}")
        share = slice(0, len(indices)) if share is None else share
        own = indices[share]
        begin, end = [self.vocabulary.BOS], [self.vocabulary.EOS]
        S, T = int(self.source_lengths[indices].max()), int(self.target_lengths[indices].max()) + 1
        sources, source_lengths = pad([self.sources[index] for index in own], S)
        rows = [np.concatenate((begin, self.targets[index], end)) for index in own]
        targets, lengths = pad(rows, T + 1)
        labels = np.where(np.arange(1, T + 1) < lengths[:, None], targets[:, 1:], IGNORE)
        return Batch(
            sources=self._asarray(sources),
            source_mask=self._asarray(np.arange(S) < source_lengths[:, None]),
            inputs=self._asarray(targets[:, :-1]),
            labels=self._asarray(labels),
            num_tokens=int(lengths.sum()) - len(rows),
            indices=own,
            first=share.start,
            whole=len(indices),
            whole_tokens=int(self.target_lengths[indices].sum()) + len(indices),
        )


def pad(rows: Sequence[Sequence[int] | Ids], width: int = 0) -> tuple[Ids, Ids]:
    """Rows of ids, padded on the right to a width or the longest of them, and their lengths: (num, longest), (num,)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), lengths.max(initial=width)), Vocabulary.PAD, dtype=np.int64)
    real = np.arange(padded.shape[1]) < lengths[:, None]  # (num, width)
    padded[real] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows] or [padded[real]])
    return padded, lengths
