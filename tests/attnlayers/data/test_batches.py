"""Batches of texts of like length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import PairDataset, Vocabulary, batches_by_length
from attnlayers.data.batches import SPREAD

many = st.lists(st.integers(1, 40) | st.integers(1, 5000), min_size=1, max_size=300).map(np.array)
sizes = st.integers(1, 40)


@settings(deadline=None, max_examples=20)
@given(many, sizes, st.integers(0, 99))
def test_each_text_is_in_one_batch(lengths: np.ndarray, batch_size: int, seed: int) -> None:
    batches = batches_by_length(lengths, batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)


@settings(deadline=None, max_examples=20)
@given(many, sizes)
def test_a_batch_has_a_bounded_number_of_tokens(lengths: np.ndarray, batch_size: int) -> None:
    bound = 1.25 * SPREAD * batch_size * lengths.mean()  # lengths are rounded up by a quarter at most
    for batch in batches_by_length(lengths, batch_size, np.random.default_rng(0)):
        padded = len(batch) * lengths[batch].max()
        assert padded <= max(bound, lengths[batch].max())
        assert len(batch) == 1 or padded <= bound


@settings(deadline=None, max_examples=20)
@given(many, sizes)
def test_every_order_has_batches_of_the_same_sizes(lengths: np.ndarray, batch_size: int) -> None:
    rngs = (None, np.random.default_rng(0), np.random.default_rng(1))
    counts = [sorted(map(len, batches_by_length(lengths, batch_size, rng))) for rng in rngs]
    assert counts[0] == counts[1] == counts[2]


def test_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 5000)
    batches = batches_by_length(lengths, 50, np.random.default_rng(1))
    assert sum(len(batch) * lengths[batch].max() for batch in batches) < 1.15 * lengths.sum()


def test_like_texts_are_shuffled_and_so_are_batches() -> None:
    lengths = np.full(100, 7)
    first, second = (batches_by_length(lengths, 10, np.random.default_rng(seed))[0].tolist() for seed in (0, 1))
    assert sorted(first) != sorted(second)
    lengths = np.arange(1, 101)
    longest = [lengths[batch].max() for batch in batches_by_length(lengths, 10, np.random.default_rng(0))]
    assert longest != sorted(longest)
    in_order = [lengths[batch].max() for batch in batches_by_length(lengths, 10)]
    assert in_order == sorted(in_order)


def test_one_long_line_costs_its_own_memory() -> None:
    """One line of 96,000 characters among 30,000 short ones: padded as one array they were 2.9e9 ids."""
    pairs = [("ab" * (1 + i % 9), "b") for i in range(30_000)] + [("a" * 96_000, "b")]
    data = PairDataset(pairs, Vocabulary("ab", "character"))
    assert sum(row.nbytes for row in data.sources) < 4e6
    largest = [batch.sources.size for batch in data.batches(128, seed=0)]
    assert max(largest) == 96_000
    assert sorted(largest)[-2] < 128 * 20
    assert sum(largest) < 1.3 * sum(len(source) for source, _ in pairs)


def test_a_batch_size_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"^`batch_size` must be 1 or more, got 0$"):
        batches_by_length(np.ones(3, np.int64), 0)
