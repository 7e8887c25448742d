"""Text out of a language model: pieces add up, characters are whole, and a text ends where it was told to."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import DataError, SubwordVocabulary, Vocabulary
from attnlayers.models import CausalLM
from attnlayers.writing import Writer

TEXTS = ["日本語 and English, naïve café\n", "a  b\tc 🎉🎉 done. The end\n"] * 4


def vocabulary() -> SubwordVocabulary:
    return SubwordVocabulary.train([("", text) for text in TEXTS], 290, byte_level=True)


class Told:
    """A model that goes on with given tokens."""

    stop: tuple[int, ...] = ()
    positions = tokenizer = None

    def __init__(self, *rows: list[int]) -> None:
        self.rows = rows

    def generate(self, prompts: Any, max_tokens: int, **options: Any) -> Iterator[np.ndarray]:
        for step in range(min(max_tokens, max(map(len, self.rows)))):
            yield np.array([row[step] if step < len(row) else -1 for row in self.rows])


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_bytes_know_every_text(text: str) -> None:
    own = vocabulary()
    assert own.decode(own.encode(text)) == text
    assert Vocabulary.from_json(own.to_json()).encode(text) == own.encode(text)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�"), min_size=1, max_size=30))
def test_pieces_are_whole_characters_and_add_up(text: str) -> None:
    own = vocabulary()
    writer: Any = Writer(Told(own.encode(text)), own)  # type: ignore[arg-type]
    pieces = [piece for (piece,) in writer.stream(["a"], 200)]
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)
    assert writer.tokens == len(own.encode(text))


@settings(deadline=None)
@given(
    text=st.text("abc ", min_size=1, max_size=20),
    stop=st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_a_stop_text_ends_and_is_not_told(text: str, stop: list[str]) -> None:
    own = Vocabulary("abc ", "character")
    model = Told(own.encode(text), own.encode("cab" * 7))
    found = Writer(model, own).write(["a", "a"], 21, stop=stop)  # type: ignore[arg-type]
    for whole, part in zip((text, "cab" * 7), found, strict=True):
        ends = [end for end in (whole.find(one) for one in stop) if end >= 0]
        # The first that is complete ends the text, at its begin.
        complete = [whole.find(one) + len(one) for one in stop if one in whole]
        if not complete:
            assert part == whole
        else:
            assert whole.startswith(part)
            assert len(part) in ends
            assert not any(one in whole[: min(complete) - 1] for one in stop)
            assert len(part) < min(complete)


def test_tokens_that_end_a_text() -> None:
    own = Vocabulary("abc", "character")
    model: Any = Told([4, 5, Vocabulary.EOS, 4], [3, 3, 3, 3])
    assert Writer(model, own).write(["a", "b"], 9) == ["bc", "aaaa"]
    model.stop = (5,)
    assert Writer(model, own).write(["a", "b"], 9) == ["b", "aaaa"]


def test_a_real_tokenizer_keeps_its_spaces() -> None:
    """Metaspace leaves out the space before the first token: a piece may not lose it."""
    tokenizers = pytest.importorskip("tokenizers")
    own = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    own.pre_tokenizer, own.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    own.train_from_iterator(TEXTS, tokenizers.trainers.BpeTrainer(special_tokens=["<unk>"], show_progress=False))
    ids = own.encode("and English, done. The end").ids
    model: Any = Told(ids[1:])
    prompt = own.decode(ids[:1])
    assert prompt + Writer(model, own).write([prompt], 99)[0] == "and English, done. The end"


def test_errors() -> None:
    model = CausalLM(8, 8, 2, 16, 1, max_length=6)
    with pytest.raises(DataError, match="the model has no tokenizer"):
        Writer(model)
    writer = Writer(model, Vocabulary("abcde", "character"))
    with pytest.raises(DataError, match="prompt 2 has no tokens, got ''"):
        writer.write(["a", ""])
    with pytest.raises(DataError, match="must not be empty"):
        writer.write(["a"], stop=[""])
    with pytest.raises(DataError, match="a prompt may have 6 tokens with this model, got 7"):
        writer.write(["abcdeab"])
    assert len([*writer.stream(["abc"], 99)]) == 5  # four tokens, and the rest
