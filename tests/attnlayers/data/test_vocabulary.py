"""Tokens and their ids."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import DataError, Unit, Vocabulary

UNITS: list[Unit] = ["character", "word"]

# Hypothesis tries the strings of the source code, too.
texts = st.text().filter(lambda text: not set(Vocabulary.SPECIAL).intersection(text.split()))

WORDS = Vocabulary(["the", "cat", "sat"], "word")


@pytest.mark.parametrize(
    ("unit", "source", "target", "ids"),
    [
        ("character", "abba", "cab", [3, 4, 4, 3]),
        ("word", "to be or  not to be", "be not", [3, 4, 5, 6, 3, 4]),
    ],
)
def test_ids_follow_first_occurrence(unit: Unit, source: str, target: str, ids: list[int]) -> None:
    vocabulary = Vocabulary.from_pairs([(source, target)], unit)
    assert vocabulary.encode(source) == ids
    assert len(vocabulary) == max([*ids, *vocabulary.encode(target)]) + 1


def test_special_tokens_come_first() -> None:
    assert (Vocabulary.PAD, Vocabulary.BOS, Vocabulary.EOS) == (0, 1, 2)
    assert Vocabulary("ab", "character").names(range(5)) == ["<pad>", "<bos>", "<eos>", "a", "b"]


@settings(deadline=None)
@given(st.text())
def test_characters_round_trip(text: str) -> None:
    vocabulary = Vocabulary.from_pairs([(text, "")], "character")
    assert vocabulary.decode(vocabulary.encode(text)) == text


@settings(deadline=None)
@given(texts)
def test_words_round_trip_up_to_white_space(text: str) -> None:
    vocabulary = Vocabulary.from_pairs([("", text)], "word")
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


@pytest.mark.parametrize("unit", UNITS)
@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts)))
def test_json_round_trip(unit: Unit, pairs: list[tuple[str, str]]) -> None:
    vocabulary = Vocabulary.from_pairs(pairs, unit)
    text = vocabulary.to_json()
    again = Vocabulary.from_json(text)
    assert text.isascii()
    assert (again, hash(again), again.unit) == (vocabulary, hash(vocabulary), unit)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([1, 3, 4, 2], "the cat"),
        ([3, 0, 5, 0], "the sat"),
        ([4, 2, 3, 99], "cat"),
        (np.array([5, 3]), "sat the"),
    ],
)
def test_decode_stops_at_the_end_and_skips_padding(ids: list[int], text: str) -> None:
    assert WORDS.decode(ids) == text


def test_names_can_be_printed() -> None:
    text = "a \n\t\u00a0年"
    vocabulary = Vocabulary.from_pairs([(text, text)], "character")
    assert vocabulary.names(vocabulary.encode(text)) == ["a", "␣", r"\n", r"\t", r"\xa0", "年"]


def test_equal_only_with_the_same_tokens_and_unit() -> None:
    vocabulary = Vocabulary("ab", "character")
    assert vocabulary == Vocabulary(["a", "b"], "character")
    assert vocabulary != Vocabulary("ba", "character")
    assert vocabulary != Vocabulary("ab", "word")
    assert vocabulary != "ab"
    assert repr(vocabulary) == "<Vocabulary: 5 tokens, unit 'character'>"


def test_never_changes() -> None:
    with pytest.raises(AttributeError):
        WORDS.unit = "character"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("vocabulary", "text", "message"),
    [
        (
            Vocabulary("caf", "character"),
            "café",
            "'é' (character 4) of 'café' is not in the vocabulary of 6 tokens; "
            "train on data that holds it or write the text without it",
        ),
        (
            WORDS,
            "the dog saw the dog",
            "'dog' (word 2), 'saw' (word 3) of 'the dog saw the dog' are not in the vocabulary of 6 tokens; "
            "train on data that holds them or write the text without them",
        ),
        (
            Vocabulary("", "character"),
            "abcdefg" * 10,
            "'a' (character 1), 'b' (character 2), 'c' (character 3), 'd' (character 4), 'e' (character 5) "
            f"and 2 more of '{('abcdefg' * 10)[:60]}…' are not in the vocabulary of 3 tokens; "
            "train on data that holds them or write the text without them",
        ),
        (
            WORDS,
            "<eos>",
            "'<eos>' (word 1) of '<eos>' is not in the vocabulary of 6 tokens; "
            "train on data that holds it or write the text without it",
        ),
    ],
)
def test_unknown_tokens_are_named(vocabulary: Vocabulary, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        vocabulary.encode(text)


@pytest.mark.parametrize("index", [-1, 6])
def test_ids_outside_the_vocabulary(index: int) -> None:
    message = rf"^ids must lie in 0\.\.5 for 6 tokens, got {index}$"
    with pytest.raises(ValueError, match=message):
        WORDS.decode([3, index])
    with pytest.raises(ValueError, match=message):
        WORDS.names([index])


@pytest.mark.parametrize(
    ("tokens", "unit", "message"),
    [
        (["a", "b", "a"], "character", "'a' occurs more than once; give each token once"),
        (["ab"], "character", "expected a token of one character, got 'ab'"),
        ([""], "character", "expected a token of one character, got ''"),
        (["a b"], "word", "expected a token of one word, got 'a b'"),
        ([""], "word", "expected a token of one word, got ''"),
        (["<eos>"], "word", "'<eos>' is the name of a special token; write the texts without it"),
    ],
)
def test_bad_tokens(tokens: list[str], unit: Unit, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        Vocabulary(tokens, unit)


def test_bad_unit() -> None:
    with pytest.raises(ValueError, match=r"^`unit` must be 'character' or 'word', got 'byte'$"):
        Vocabulary([], "byte")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"unit": "character"}',
        '{"unit": "byte", "tokens": []}',
        '{"unit": ["word"], "tokens": []}',
        '{"unit": "word", "tokens": "abc"}',
        '{"unit": "word", "tokens": ["a", 1]}',
        '{"unit": "word", "tokens": [], "more": 1}',
        '{"unit": "word", "unknown": 1, "tokens": []}',
        '{"unit": "word", "normalize": "nfc", "tokens": []}',
        '{"unit": "subword", "normalize": "NFC"}',
        '{"unit": "subword", "normalize": "NFX", "tokenizer": {}}',
    ],
)
def test_json_of_something_else(text: str) -> None:
    message = (
        'expected a vocabulary {"unit": "character" or "word", "tokens": [strings]}, '
        f"got '{text}'; write it with `Vocabulary.to_json`"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        Vocabulary.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_not_json(text: str) -> None:
    with pytest.raises(DataError, match=r"^expected a vocabulary as JSON, got '.*': "):
        Vocabulary.from_json(text)


def test_json_with_bad_tokens() -> None:
    with pytest.raises(DataError, match="'a' occurs more than once"):
        Vocabulary.from_json('{"unit": "character", "tokens": ["a", "a"]}')


# -- open vocabularies


def test_what_is_not_known_in_an_open_vocabulary() -> None:
    vocabulary = Vocabulary("abc", "character", unknown=True)
    assert vocabulary.names(range(5)) == ["<pad>", "<bos>", "<eos>", "<unk>", "a"]
    assert vocabulary.encode("axé") == [4, 3, 3]
    assert vocabulary.decode([4, 3, 5, 2]) == "a<unk>b"
    words = Vocabulary(["the", "cat"], "word", unknown=True)
    assert words.decode(words.encode("the <eos> cat <unk>")) == "the <unk> cat <unk>"


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1), st.text())
def test_an_open_vocabulary_takes_every_text(pairs: list[tuple[str, str]], text: str) -> None:
    for unit in UNITS:
        vocabulary = Vocabulary.from_pairs(pairs, unit, unknown=True, normalize="NFC")
        ids = vocabulary.encode(text)
        assert all(vocabulary.UNK <= i < len(vocabulary) for i in ids)
        assert len(ids) == len(vocabulary.tokens(text))
        assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


def test_a_name_of_a_special_token_is_unknown() -> None:
    vocabulary = Vocabulary.from_pairs([("a <pad> <eos>", "<unk> b")], "word", unknown=True)
    assert vocabulary.encode("<pad> <eos> <unk> a b") == [3, 3, 3, 4, 5]


def test_rare_tokens_are_left_out() -> None:
    pairs = [("a a b", "c c"), ("b d", "a")]
    vocabulary = Vocabulary.from_pairs(pairs, "word", min_count=2, unknown=True)
    assert vocabulary.tokens("a b") == ["a", "b"]
    assert vocabulary.encode("a b c d") == [4, 5, 6, 3]
    assert len(Vocabulary.from_pairs(pairs, "word", min_count=3, unknown=True)) == 5
    message = "no word occurs 9 times or more, so that --min-count 9 leaves nothing: give --min-count 3 or less"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        Vocabulary.from_pairs(pairs, "word", min_count=9, unknown=True)


def test_normal_forms() -> None:
    typed, composed = "e\u0301", "é"
    assert Vocabulary.from_pairs([(typed, "ﬁ")], "character", normalize="NFC").tokens(typed) == [composed]
    assert Vocabulary.from_pairs([(typed, "ﬁ")], "character", normalize="NFKC").encode("ﬁ") == [4, 5]
    assert Vocabulary.from_pairs([(typed, "x")], "character").encode(typed) == [3, 4]
    with pytest.raises(ValueError, match=r"^`normalize` must be one of NFC, NFKC, none, got 'nfc'$"):
        Vocabulary("ab", "character", normalize="nfc")  # type: ignore[arg-type]


def test_a_vocabulary_of_version_0_1_is_closed_and_as_it_was() -> None:
    vocabulary = Vocabulary.from_json('{"unit": "character", "tokens": ["a", "b"]}')
    assert vocabulary == Vocabulary("ab", "character")
    assert vocabulary.encode("ba") == [4, 3]
    with pytest.raises(DataError, match="not in the vocabulary"):
        vocabulary.encode("c")
