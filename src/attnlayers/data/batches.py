"""Which texts make a batch: those of like length, so that padding stays small and a long text stands alone."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches_by_length", "shuffled"]

Ids: TypeAlias = NDArray[np.int64]

SPREAD = 4
"""Tokens of a batch, padding included, in times of a batch of mean length. A batch of longer texts has fewer of them:
memory for speed, since the products of a batch with fewer rows are less efficient."""


def batches_by_length(lengths: Ids, batch_size: int, rng: np.random.Generator | None = None) -> list[Ids]:
    """Places of texts in batches; how many there are, and how large, depends on the lengths alone.

    Parameters
    ----------
    lengths : integer array (num,)
        Tokens of each text.
    batch_size : int
        Texts in a batch at most. A batch of long ones has fewer: see `SPREAD`.
    rng : numpy.random.Generator, optional
        Shuffles texts of like length, and the batches. Without it both go from short to long.

    Returns
    -------
    batches : list of integer array
        Each place occurs once.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more, got {batch_size}")
    upper = _rounded_up(lengths)
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(upper[order], kind="stable")]
    upper = upper[order]
    budget = SPREAD * batch_size * int(upper.sum()) // max(1, len(upper))
    batches, first = [], 0
    while first < len(order):
        some = upper[first : first + batch_size]
        padded = some * np.arange(1, len(some) + 1)  # tokens of a batch that ends here
        count = max(1, int(np.searchsorted(padded, budget, side="right")))
        batches.append(order[first : first + count])
        first += count
    if rng is not None:
        batches = [batches[place] for place in rng.permutation(len(batches))]
    return batches


def shuffled(seed: int, *epoch: int) -> np.random.Generator:
    """A generator that depends on `seed` and `epoch` alone."""
    if min(seed, *epoch, 0) < 0:
        raise ValueError(f"seed and epoch must be 0 or more, got {', '.join(map(str, (seed, *epoch)))}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=epoch))


def _rounded_up(lengths: Ids) -> Ids:
    """Lengths rounded up to three binary digits: those that come out alike are shuffled with each other."""
    _, digits = np.frexp(lengths)
    step = 2 ** np.maximum(digits.astype(np.int64) - 3, 0)
    rounded: Ids = -(-lengths // step) * step
    return rounded
