"""Pairs as padded arrays of ids, in batches."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import IGNORE, Batch, DataError, PairDataset, Vocabulary, generate_dates

LETTERS = Vocabulary("abcde", "character")
THREE = [("abc", "de"), ("d", "abcd"), ("ee", "a")]

DATES = generate_dates(53, seed=7)
DATASET = PairDataset(DATES, Vocabulary.from_pairs(DATES, "character"))


def numpy_read_only(ids: Any) -> Any:
    ids = np.array(ids)
    ids.flags.writeable = False
    return ids


@pytest.fixture(params=["numpy", "numpy_read_only", "array_api_strict", "torch", "cupy"])
def asarray(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    if request.param == "numpy_read_only":
        return numpy_read_only
    library = pytest.importorskip(request.param)
    if request.param == "cupy":
        try:
            library.cuda.runtime.getDeviceCount()
        except library.cuda.runtime.CUDARuntimeError as error:
            pytest.skip(f"no CUDA device answers: {error}")
    return library.asarray  # type: ignore[no-any-return]


def on_host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def assert_same(batch: Batch, other: Batch) -> None:
    for name in ("sources", "source_mask", "inputs", "labels", "indices"):
        one, two = on_host(getattr(batch, name)), on_host(getattr(other, name))
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two, err_msg=name)
    assert batch.num_tokens == other.num_tokens


def lists(rows: Any) -> list[list[int]]:
    return [row.tolist() for row in rows]


def test_arrays_by_hand() -> None:
    dataset = PairDataset(THREE, LETTERS)
    assert lists(dataset.sources) == [[3, 4, 5], [6], [7, 7]]
    assert dataset.source_lengths.tolist() == [3, 1, 2]
    assert lists(dataset.targets) == [[6, 7], [3, 4, 5, 6], [3]]
    assert dataset.target_lengths.tolist() == [2, 4, 1]
    assert dataset.pairs == THREE
    assert len(dataset) == 3
    assert repr(dataset) == "<PairDataset: 3 pairs, sources up to 3 tokens, targets up to 4>"


def test_reversed_sources_are_padded_on_the_right() -> None:
    dataset = PairDataset(THREE, LETTERS, reverse=True)
    assert lists(dataset.sources) == [[5, 4, 3], [6], [7, 7]]
    assert dataset.batch(np.arange(3)).sources.tolist() == [[5, 4, 3], [6, 0, 0], [7, 7, 0]]
    assert lists(dataset.targets) == lists(PairDataset(THREE, LETTERS).targets)
    assert dataset.pairs == THREE


def test_words() -> None:
    pairs = [("to be or not", "be"), ("to  be", "not to be")]
    dataset = PairDataset(pairs, Vocabulary.from_pairs(pairs, "word"), reverse=True)
    assert lists(dataset.sources) == [[6, 5, 4, 3], [4, 3]]
    assert lists(dataset.targets) == [[4], [6, 3, 4]]


def test_batch_by_hand(asarray: Callable[[Any], Any]) -> None:
    batch = PairDataset(THREE, LETTERS).to(asarray).batch(np.array([2, 0, 0]))
    assert on_host(batch.sources).tolist() == [[7, 7, 0], [3, 4, 5], [3, 4, 5]]
    assert on_host(batch.source_mask).tolist() == [[True, True, False], [True] * 3, [True] * 3]
    assert on_host(batch.inputs).tolist() == [[1, 3, 2], [1, 6, 7], [1, 6, 7]]
    assert on_host(batch.labels).tolist() == [[3, 2, IGNORE], [6, 7, 2], [6, 7, 2]]
    assert batch.num_tokens == 8
    assert isinstance(batch.indices, np.ndarray)
    assert type(batch.sources) is type(batch.labels) is type(asarray(np.zeros(1)))


def test_other_libraries_give_the_same_batches(asarray: Callable[[Any], Any]) -> None:
    train, test = DATASET.split(seed=3)
    for part, moved in zip((train, test), DATASET.to(asarray).split(seed=3), strict=True):
        assert moved.pairs == part.pairs
        for one, two in zip(part.batches(11, seed=5), moved.batches(11, seed=5), strict=True):
            assert_same(one, two)


def test_batches_are_made_on_the_host() -> None:
    moved = []

    def asarray(array: Any) -> Any:
        moved.append(array)
        return numpy_read_only(array)

    (batch,) = DATASET.to(asarray).batches(100)
    assert len(moved) == 4
    assert all(type(array) is np.ndarray for array in moved)
    assert not batch.sources.flags.writeable
    assert isinstance(batch.indices, np.ndarray)
    assert DATASET.batch(np.arange(2)).sources.flags.writeable, "the original stays"


batch_sizes = st.integers(1, len(DATES) + 5)
seeds = st.none() | st.integers(0, 2**64)
epochs = st.integers(0, 2**40)


@settings(deadline=None)
@given(batch_sizes, seeds, epochs)
def test_an_epoch_covers_every_pair_once(batch_size: int, seed: int | None, epoch: int) -> None:
    batches = [*DATASET.batches(batch_size, seed=seed, epoch=epoch)]
    indices = np.concatenate([batch.indices for batch in batches])
    assert sorted(indices.tolist()) == list(range(len(DATES)))
    assert len(batches) == DATASET.num_batches(batch_size)
    assert all(1 <= len(batch.indices) <= batch_size for batch in batches)
    assert sum(batch.num_tokens for batch in batches) == sum(len(target) + 1 for _, target in DATES)


@settings(deadline=None)
@given(batch_sizes, seeds, epochs, st.data())
def test_a_resumed_epoch_gives_the_same_batches(
    batch_size: int, seed: int | None, epoch: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, DATASET.num_batches(batch_size)))
    batches = [*DATASET.batches(batch_size, seed=seed, epoch=epoch)]
    resumed = DATASET.batches(batch_size, seed=seed, epoch=epoch, start=start)
    for one, two in zip(batches[start:], resumed, strict=True):
        assert_same(one, two)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(DATES) - 1), min_size=1))
def test_a_batch_is_its_texts(indices: list[int]) -> None:
    batch = DATASET.batch(np.array(indices))
    vocabulary = DATASET.vocabulary
    texts = [DATES[index] for index in indices]
    assert [vocabulary.decode(row) for row in batch.sources] == [source for source, _ in texts]
    assert [vocabulary.decode(row) for row in batch.inputs] == [target for _, target in texts]
    assert batch.sources.shape == (len(texts), max(len(source) for source, _ in texts))
    assert batch.labels.shape == batch.inputs.shape == (len(texts), max(len(target) for _, target in texts) + 1)
    np.testing.assert_array_equal(batch.source_mask.sum(axis=1), [len(source) for source, _ in texts])
    assert batch.num_tokens == (batch.labels != IGNORE).sum()


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {
        tuple(next(DATASET.batches(9, seed=seed, epoch=epoch)).indices.tolist())
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)]
    }
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("num", "held_out", "count"), [(53, 0.1, 5), (10, 0.1, 1), (53, 0.5, 26), (49, 1 / 49, 1), (2, 0.99, 1)]
)
def test_split_keeps_every_pair(num: int, held_out: float, count: int) -> None:
    dataset = PairDataset(DATES[:num], DATASET.vocabulary)
    train, test = dataset.split(held_out, seed=1)
    assert (len(train), len(test)) == (num - count, count)
    assert sorted(train.pairs + test.pairs) == sorted(DATES[:num])
    for part in (train, test):
        again = PairDataset(part.pairs, part.vocabulary)
        for name in ("source_lengths", "target_lengths"):
            np.testing.assert_array_equal(getattr(part, name), getattr(again, name))
        assert_same(next(part.batches(num)), next(again.batches(num)))


def test_split_is_decided_by_the_seed() -> None:
    assert DATASET.split(seed=1)[1].pairs == DATASET.split(seed=1)[1].pairs
    assert DATASET.split(seed=1)[1].pairs != DATASET.split(seed=2)[1].pairs


@pytest.mark.parametrize(
    ("num", "held_out", "message"),
    [
        (
            9,
            0.1,
            "holding out 0.1 of the pairs takes at least 10 of them, got 9; add pairs or hold out a larger share",
        ),
        (
            3,
            0.3,
            "holding out 0.3 of the pairs takes at least 4 of them, got 3; add pairs or hold out a larger share",
        ),
        (20, 0.0, "`held_out` must lie between 0 and 1, both excluded, got 0.0"),
        (20, 1.0, "`held_out` must lie between 0 and 1, both excluded, got 1.0"),
    ],
)
def test_bad_splits(num: int, held_out: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PairDataset(DATES[:num], DATASET.vocabulary).split(held_out, seed=0)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "a data set needs at least one pair, got none"),
        ([("a", "b"), ("", "c")], "the source of pair 2 has no tokens, got ''; leave the pair out"),
        ([("a", "")], "the target of pair 1 has no tokens, got ''; leave the pair out"),
        (
            [("a", "x")],
            "'x' (character 1) of 'x' is not in the vocabulary of 8 tokens; "
            "train on data that holds it or write the text without it",
        ),
    ],
)
def test_bad_pairs(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        PairDataset(pairs, LETTERS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DATASET.num_batches(0), "`batch_size` must be 1 or more, got 0"),
        (lambda: DATASET.batches(-3), "`batch_size` must be 1 or more, got -3"),
        (lambda: DATASET.batches(10, start=7), "`start` must lie in 0..6 for 6 batches, got 7"),
        (lambda: DATASET.batches(10, start=-1), "`start` must lie in 0..6 for 6 batches, got -1"),
        (lambda: DATASET.select(np.array([], int)), "a data set needs at least one pair, got none"),
        (lambda: DATASET.batches(10, seed=-1), "seed and epoch must be 0 or more, got -1, 0"),
        (lambda: DATASET.batches(10, seed=4, epoch=-2), "seed and epoch must be 0 or more, got 4, -2"),
        (lambda: DATASET.batch(np.array([], int)), "`indices` must be one or more of 0..52, got []"),
        (lambda: DATASET.batch(np.array([3, 53])), "`indices` must be one or more of 0..52, got [3, 53]"),
        (lambda: DATASET.batch(np.array([-1])), "`indices` must be one or more of 0..52, got [-1]"),
    ],
)
def test_bad_arguments_are_named_before_the_first_batch(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
