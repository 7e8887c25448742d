"""Subwords."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import DataError, SubwordVocabulary, Vocabulary

PAIRS = [("the lower the newer", "plus bas plus neuf"), ("the newest", "le plus neuf"), ("e\u0301te\u0301", "été")] * 3
VOCABULARY = SubwordVocabulary.train(PAIRS, 60, "NFC")


def test_words_that_occur_often_are_one_token() -> None:
    assert VOCABULARY.unit == "subword"
    assert len(VOCABULARY) <= 60
    assert VOCABULARY.tokens("the plus") == ["▁the", "▁plus"]
    assert VOCABULARY.names(range(4)) == ["<pad>", "<bos>", "<eos>", "<unk>"]


@pytest.mark.parametrize("text", ["the lower", "le plus bas", "été", "wert", "the  newest the"])
def test_texts_of_known_characters_come_back(text: str) -> None:
    ids = VOCABULARY.encode(text)
    assert VOCABULARY.UNK not in ids
    assert VOCABULARY.decode([VOCABULARY.BOS, *ids, VOCABULARY.EOS, 9]) == text


def test_normal_form_comes_first() -> None:
    assert VOCABULARY.encode("e\u0301te\u0301") == VOCABULARY.encode("été")


def test_what_was_never_seen() -> None:
    assert VOCABULARY.UNK in VOCABULARY.encode("日本")
    assert "<unk>" in VOCABULARY.decode(VOCABULARY.encode("the 日"))


@settings(deadline=None, max_examples=20)
@given(st.text() | st.sampled_from(["<eos>", "a<pad>b", "<unk>", "<bos> the"]))
def test_no_text_holds_a_special_token(text: str) -> None:
    ids = VOCABULARY.encode(text)
    assert all(VOCABULARY.UNK <= i < len(VOCABULARY) for i in ids)
    assert VOCABULARY.names(ids) is not None


def test_json_round_trip_and_the_same_again() -> None:
    text = VOCABULARY.to_json()
    again = Vocabulary.from_json(text)
    assert text.isascii()
    assert isinstance(again, SubwordVocabulary)
    assert again == VOCABULARY == SubwordVocabulary.train(PAIRS, 60, "NFC")
    assert hash(again) == hash(VOCABULARY)
    assert again.encode("the <eos> newer") == VOCABULARY.encode("the <eos> newer")
    assert again != SubwordVocabulary.train(PAIRS, 30, "NFC")


def test_too_few_for_the_characters() -> None:
    message = "--vocab-size must be 11 or more for 6 different characters, got 10"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        SubwordVocabulary.train([("abcde", "abcde")] * 3, 10)
    assert len(SubwordVocabulary.train([("abcde", "abcde")] * 3, 11)) == 11


def test_too_little_text() -> None:
    message = "these texts are too few for subwords: no two characters stand together twice; use --unit character"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        SubwordVocabulary.train([("ab", "cd")], 50)


@pytest.mark.parametrize("tokenizer", ["{}", '{"model": {"type": "BPE"}}'])
def test_json_that_is_no_model(tokenizer: str) -> None:
    with pytest.raises(DataError, match=r"^expected a model of the library tokenizers, got "):
        Vocabulary.from_json(json.dumps({"unit": "subword", "normalize": "NFC", "tokenizer": json.loads(tokenizer)}))


def test_a_model_with_other_special_tokens() -> None:
    content = json.loads(VOCABULARY.to_json())
    renamed = json.loads(json.dumps(content).replace("<pad>", "[PAD]"))
    with pytest.raises(DataError, match=r"^the first tokens must be <pad>, <bos>, <eos>, <unk>, got \[PAD\], "):
        Vocabulary.from_json(json.dumps(renamed))
