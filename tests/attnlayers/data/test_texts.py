"""Plain text: lines, windows, batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnlayers.data import IGNORE, DataError, TextDataset, Vocabulary, read_text, split_text

LETTERS = Vocabulary("abc\n", "character")


@given(
    lines=st.lists(st.text("abc", max_size=5).map(lambda line: line + "\n"), min_size=2, max_size=12),
    context=st.integers(1, 9),
    batch_size=st.integers(1, 4),
    seed=st.none() | st.integers(0, 3),
)
def test_every_token_is_foreseen_once(lines: list[str], context: int, batch_size: int, seed: int | None) -> None:
    data, ids = TextDataset(lines, LETTERS, context), np.array(LETTERS.encode("".join(lines)))
    found = np.zeros(len(ids), int)
    batches = [*data.batches(batch_size, seed=seed, epoch=2)]
    assert len(batches) == data.num_batches(batch_size)
    for batch in batches:
        T = batch.inputs.shape[1]
        assert context >= T
        for row, index in enumerate(batch.indices):
            valid = batch.labels[row] != IGNORE
            places = index * T + np.arange(T)[valid]
            assert np.array_equal(batch.inputs[row][valid], ids[places])
            assert np.array_equal(batch.labels[row][valid], ids[places + 1])
            found[places + 1] += 1
        assert batch.num_tokens == int(np.sum(batch.labels != IGNORE))
        assert batch.sources.shape == batch.source_mask.shape == (len(batch.indices), 0)
    assert found[0] == 0
    assert np.all(found[1:] == 1)
    rest = [*data.batches(batch_size, seed=seed, epoch=2, start=1)]
    for one, other in zip(rest, batches[1:], strict=True):
        assert np.array_equal(one.inputs, other.inputs)


def test_held_out_lines_are_the_last() -> None:
    train, test = split_text(range(25))
    assert [*train, *test] == [*range(25)]
    assert len(test) == 2
    assert len(split_text(range(2))[1]) == 1
    data = TextDataset(["a\n", "bb\n", "c\n"], LETTERS, 4)
    assert data.select(np.array([1, 2])).windows.tolist() == [[*LETTERS.encode("bb\nc\n")]]


@pytest.mark.parametrize("text", ["a\nb", "a\nb\n", "\ufeffa\r\nb\r\n", "a\rb"])
def test_line_ends(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_bytes(text.encode())
    assert read_text(tmp_path / "t") == ["a\n", "b\n"]


def test_errors(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_text(path)
    for few in ("", "one line\n", "\n\n \n"):
        path.write_text(few)
        with pytest.raises(DataError, match="must hold two lines of text or more"):
            read_text(path)
    with pytest.raises(DataError, match="a text needs two tokens or more, got 1"):
        TextDataset(["\n"], LETTERS, 4)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shares_of_a_batch_make_the_whole(ranks: int) -> None:
    data = TextDataset(["abcab", "cabba", "bca"], LETTERS, context=2)
    whole = list(data.batches(5, seed=1))

    def share_of(rank: int) -> Callable[[int], slice]:
        return lambda count: slice(rank * count // ranks, (rank + 1) * count // ranks)

    parts = [list(data.batches(5, seed=1, share=share_of(rank))) for rank in range(ranks)]
    for own, batch in zip(zip(*parts, strict=True), whole, strict=True):
        assert np.array_equal(np.concatenate([part.labels for part in own]), batch.labels)
        assert np.array_equal(np.concatenate([part.indices for part in own]), batch.indices)
        assert sum(part.num_tokens for part in own) == batch.num_tokens
        assert {(part.whole, part.whole_tokens) for part in own} == {(len(batch.indices), batch.num_tokens)}
        assert [part.first for part in own] == [len(batch.indices) * rank // ranks for rank in range(ranks)]
