"""Texts in, texts out: order, batches, direction, weights."""

from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends import get_backend
from attnlayers.data import DataError, Vocabulary
from attnlayers.models import AttentionSeq2seq
from attnlayers.translation import MAX_LENGTH, Translation, translate

LETTERS = Vocabulary("abcdefgh", "character")
WORDS = Vocabulary(["to", "be", "or", "not", "that", "is", "the", "question"], "word")
TEXTS = ["abc", "h", "gfedcba", "aa", "hgh", "bdfhaceg", "c", "ab", "dad", "ffffff", "ace"]


def model_of(library: Library, seed: int = 2) -> AttentionSeq2seq:
    """Random weights that give answers of many lengths."""
    model = AttentionSeq2seq(len(LETTERS), 3, 5, backend=library.backend)
    rng = np.random.default_rng(seed)
    state = {name: 1.5 * rng.standard_normal(value.shape) for name, value in model.state().items()}
    state["decoder.affine.b"][LETTERS.EOS] += 2
    model.load_state(state)
    return model


@pytest.fixture
def model() -> AttentionSeq2seq:
    return model_of(Library(get_backend("numpy")))


def always(model: AttentionSeq2seq, token: int) -> None:
    """Make the model answer `token` whatever it reads."""
    state = {name: np.zeros_like(value) for name, value in model.state().items()}
    state["decoder.affine.b"][token] = 1
    model.load_state(state)


def assert_same(one: Translation, other: Translation) -> None:
    assert (one.text, one.source_tokens, one.target_tokens) == (other.text, other.source_tokens, other.target_tokens)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


@pytest.mark.parametrize("reverse", [True, False])
def test_answers_come_in_the_order_of_the_texts(library: Library, reverse: bool) -> None:
    model = model_of(library)
    answers = translate(model, LETTERS, TEXTS, reverse=reverse, max_length=20)
    assert ["".join(answer.source_tokens) for answer in answers] == TEXTS
    assert len({answer.text for answer in answers}) > 4, "the test says little if answers are alike"
    for text, answer in zip(TEXTS, answers, strict=True):
        (alone,) = translate(model, LETTERS, [text], reverse=reverse, max_length=20)
        assert_same(answer, alone)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 12])
def test_batches_change_no_answer(model: AttentionSeq2seq, batch_size: int) -> None:
    expected = translate(model, LETTERS, TEXTS, reverse=True, max_length=20)
    answers = translate(model, LETTERS, TEXTS, reverse=True, max_length=20, batch_size=batch_size)
    for one, other in zip(answers, expected, strict=True):
        assert_same(one, other)


def test_text_tokens_and_weights_agree(library: Library) -> None:
    for answer in translate(model_of(library), LETTERS, TEXTS, reverse=True, max_length=20):
        assert isinstance(answer.weights, np.ndarray)
        assert answer.weights.shape == (len(answer.target_tokens), len(answer.source_tokens))
        np.testing.assert_allclose(answer.weights.sum(axis=1), 1, rtol=1e-5)
        ended = answer.target_tokens[-1] == "<eos>"
        assert ended or len(answer.target_tokens) == 20
        assert "<eos>" not in answer.target_tokens[:-1]
        assert answer.text == "".join(token for token in answer.target_tokens if len(token) == 1)


def test_reversed_sources_are_shown_as_they_read(model: AttentionSeq2seq) -> None:
    # What a model does with a text read backwards is what it does with the text turned round.
    backwards = translate(model, LETTERS, TEXTS, reverse=True, max_length=20)
    turned = translate(model, LETTERS, [text[::-1] for text in TEXTS], reverse=False, max_length=20)
    for answer, other in zip(backwards, turned, strict=True):
        assert answer.text == other.text
        assert answer.source_tokens == other.source_tokens[::-1]
        np.testing.assert_allclose(answer.weights, other.weights[:, ::-1], atol=1e-5)
    assert any(not np.allclose(answer.weights, answer.weights[:, ::-1]) for answer in backwards)


def test_weights_point_at_the_token_that_was_attended_to(model: AttentionSeq2seq) -> None:
    """An encoder state that is large for one token and a decoder state that looks for large ones."""
    state = {name: np.zeros_like(value) for name, value in model.state().items()}
    (d,) = LETTERS.encode("d")
    state["encoder.embed.W"][d, 0] = 1
    H = state["encoder.lstm.Wh"].shape[0]
    state["encoder.lstm.b"][:H] = -50  # forget
    state["encoder.lstm.b"][2 * H :] = 50  # let in and out
    state["encoder.lstm.Wx"][0, H : 2 * H] = 50
    state["decoder.lstm.b"][H:] = 50
    model.load_state(state)
    for reverse in (True, False):
        for text in ("dabc", "abd", "cdaa"):
            (answer,) = translate(model, LETTERS, [text], reverse=reverse, max_length=2)
            assert answer.weights.argmax(axis=1).tolist() == [text.index("d")] * 2


def test_words() -> None:
    model = model_of(Library(get_backend("numpy")))
    (answer,) = translate(model, WORDS, ["  not \t that question"], reverse=True, max_length=6)
    assert answer.source_tokens == ["not", "that", "question"]
    assert answer.text.split() == [token for token in answer.target_tokens if not token.startswith("<")]
    assert answer.weights.shape == (len(answer.target_tokens), 3)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_answers_are_cut_off(model: AttentionSeq2seq, length: int) -> None:
    (a,) = LETTERS.encode("a")
    always(model, a)
    for answer in translate(model, LETTERS, TEXTS[:3], reverse=True, max_length=length):
        assert answer.text == "a" * length
        assert answer.target_tokens == ["a"] * length
        assert len(answer.weights) == length


def test_answers_are_cut_off_somewhere(model: AttentionSeq2seq) -> None:
    (a,) = LETTERS.encode("a")
    always(model, a)
    (answer,) = translate(model, LETTERS, ["abc"], reverse=True)
    assert answer.text == "a" * MAX_LENGTH


def test_an_answer_may_be_empty(model: AttentionSeq2seq) -> None:
    always(model, LETTERS.EOS)
    (answer,) = translate(model, LETTERS, ["abc"], reverse=True)
    assert answer.text == ""
    assert answer.target_tokens == ["<eos>"]
    np.testing.assert_allclose(answer.weights, np.full((1, 3), 1 / 3), rtol=1e-6)


@pytest.mark.parametrize("special", [LETTERS.PAD, LETTERS.BOS])
def test_padding_that_is_answered_is_no_text(model: AttentionSeq2seq, special: int) -> None:
    always(model, special)
    (answer,) = translate(model, LETTERS, ["abc"], reverse=True, max_length=3)
    assert answer.text == ""
    assert answer.target_tokens == [LETTERS.SPECIAL[special]] * 3


def test_no_texts_no_answers(model: AttentionSeq2seq) -> None:
    assert translate(model, LETTERS, [], reverse=True) == []


@pytest.mark.parametrize("texts", [["abx"], ["abc", "x", "abc"]])
def test_a_token_that_is_not_known(model: AttentionSeq2seq, texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"'x' \(character \d\) of '.*' is not in the vocabulary of 11 tokens"):
        translate(model, LETTERS, texts, reverse=True)


@pytest.mark.parametrize(
    ("vocabulary", "texts"),
    [(LETTERS, [""]), (LETTERS, ["abc", ""]), (LETTERS, ["", "", "a"]), (WORDS, [" \t "]), (WORDS, ["to be", ""])],
)
def test_an_empty_text(model: AttentionSeq2seq, vocabulary: Vocabulary, texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"empty|no tokens"):
        translate(model, vocabulary, texts, reverse=True, max_length=3)


@pytest.mark.parametrize(("name", "value"), [("max_length", 0), ("batch_size", 0), ("batch_size", -1)])
def test_bad_sizes_are_named(model: AttentionSeq2seq, name: str, value: int) -> None:
    sizes: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        translate(model, LETTERS, ["abc"], reverse=True, **sizes)
