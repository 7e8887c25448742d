"""Held out is held out."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import DataError, PairDataset, Vocabulary, generate_dates, split_pairs

PAIRS = [(f"s{i % 40}", f"t{i}") for i in range(100)]


def sources(pairs: list[tuple[str, str]], places: np.ndarray) -> set[str]:
    return {" ".join(pairs[place][0].split()) for place in places}


def test_dates_do_not_overlap() -> None:
    pairs = generate_dates(seed=1984)
    train, test = split_pairs(pairs, seed=1984)
    assert len(test) == 5000
    assert not sources(pairs, train) & sources(pairs, test)
    train, test = split_pairs(pairs, seed=1984, by="book")
    known = sources(pairs, train)
    shared = sum(pairs[place][0] in known for place in test)
    assert shared / len(test) == pytest.approx(0.283, abs=0.02), "what the book's split does to these dates"


few = st.lists(st.tuples(st.sampled_from(["a", "b", " b", "b ", "c d", "c  d", "e", "f"]), st.text()), min_size=2)


@settings(deadline=None, max_examples=20)
@given(few, st.floats(0.01, 0.99), st.integers(0, 2**64))
def test_no_source_is_in_both_parts(pairs: list[tuple[str, str]], held_out: float, seed: int) -> None:
    try:
        train, test = split_pairs(pairs, held_out, seed=seed)
    except DataError:
        kinds = len(sources(pairs, np.arange(len(pairs))))
        assert kinds == 1 or len(pairs) * held_out < 1
        return
    assert sorted([*train, *test]) == list(range(len(pairs)))
    assert len(train)
    assert len(test)
    assert not sources(pairs, train) & sources(pairs, test)


@settings(deadline=None, max_examples=20)
@given(st.integers(10, 200), st.integers(1, 4), st.integers(0, 100))
def test_about_the_share_is_held_out(count: int, times: int, seed: int) -> None:
    pairs = [(str(i // times), str(i)) for i in range(count)]
    _, test = split_pairs(pairs, 0.1, seed=seed)
    assert count // 10 - times < len(test) <= max(count // 10, times)


def test_the_seed_decides() -> None:
    for by in ("source", "book"):
        one, same, other = (split_pairs(PAIRS, seed=seed, by=by)[1].tolist() for seed in (3, 3, 4))  # type: ignore[arg-type]
        assert one == same != other


def test_every_source_has_more_pairs_than_are_to_be_held_out() -> None:
    pairs = [("a", str(i)) for i in range(7)] + [("b", str(i)) for i in range(5)]
    train, test = split_pairs(pairs, 0.1, seed=0)
    assert (sources(pairs, train), sources(pairs, test)) == ({"a"}, {"b"})


def test_one_source_alone() -> None:
    message = "all 20 pairs have the same source; none can be held out: add pairs of other sources"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        split_pairs([("a ", "b"), ("a", "c")] * 10, seed=0)
    assert [len(part) for part in split_pairs([("a", "b")] * 20, seed=0, by="book")] == [18, 2]


def test_a_split_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"^`by` must be 'source' or 'book', got 'target'$"):
        split_pairs(PAIRS, seed=0, by="target")  # type: ignore[arg-type]


def test_a_data_set_is_split_alike() -> None:
    data = PairDataset(PAIRS, Vocabulary.from_pairs(PAIRS, "character"))
    for part, places in zip(data.split(seed=7), split_pairs(PAIRS, seed=7), strict=True):
        assert part.pairs == [PAIRS[place] for place in places]
