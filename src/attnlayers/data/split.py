"""Pairs to learn from, and pairs that are held out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .batches import Ids, shuffled
from .errors import DataError

__all__ = ["Split", "split_pairs"]

Split = Literal["source", "book"]


def split_pairs(
    pairs: Sequence[tuple[str, str]], held_out: float = 0.1, *, seed: int, by: Split = "source"
) -> tuple[Ids, Ids]:
    """Shuffle pairs and split them into a part to train on and a part to test with.

    Parameters
    ----------
    pairs : sequence of (source, target)
    held_out : float
        Share of the pairs in the second part, between 0 and 1; rounded down, but at least one pair.
    seed : int
        Same seed, same split.
    by : {"source", "book"}
        "source" holds out all pairs of a source: none is met in training, whatever stands in the data twice. White
        space makes no difference between sources. "book" draws single pairs, as "Deep Learning from Scratch 2" does;
        a source that occurs twice is then likely to stand in both parts.

    Returns
    -------
    train, test : integer arrays
        Places in `pairs`; each place is in one of the two.

    Raises
    ------
    DataError
        Where there are too few pairs, or too few sources, to hold one out.
    ValueError
        Where `held_out`, `seed` or `by` is not what it may be.
    """
    if by not in get_args(Split):
        raise ValueError(f"`by` must be 'source' or 'book', got {by!r}")
    if not 0 < held_out < 1:
        raise ValueError(f"`held_out` must lie between 0 and 1, both excluded, got {held_out}")
    least = math.ceil(round(1 / held_out, 9))  # 1 / (1 / 49) is just over 49
    if len(pairs) < least:
        raise DataError(
            f"holding out {held_out:g} of the pairs takes at least {least} of them, got {len(pairs)}; "
            "add pairs or hold out a larger share"
        )
    count = max(1, int(len(pairs) * held_out))
    order = shuffled(seed).permutation(len(pairs))
    if by == "book":
        return order[:-count], order[-count:]
    sources = [" ".join(source.split()) for source, _ in pairs]
    pairs_of = Counter(sources)
    if len(pairs_of) == 1:
        raise DataError(
            f"all {len(pairs)} pairs have the same source; none can be held out: add pairs of other sources"
        )
    chosen: set[str] = set()
    for source in dict.fromkeys(sources[place] for place in order[::-1]):
        if pairs_of[source] <= count:
            chosen.add(source)
            count -= pairs_of[source]
    if not chosen:  # every source has more pairs than are to be held out
        chosen = {min(pairs_of, key=pairs_of.__getitem__)}
    is_test = np.array([sources[place] in chosen for place in order])
    return order[~is_test], order[is_test]
