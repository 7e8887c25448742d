"""Attentions of models: a translator's against its steps, and all against float64."""

from typing import Any

import numpy as np
import pytest
from support import Library

from attnlayers.data import Vocabulary
from attnlayers.models import AttentionSeq2seq, CausalLM, Transformer
from attnlayers.page.model import attentions, model_page, text_page
from attnlayers.translation import Translation, translate

LETTERS = Vocabulary("abcdefgh", "character")
TEXTS = ["abc", "h", "gfedcba"]


def transformer(library: Library) -> Transformer:
    model = Transformer(len(LETTERS), 8, 2, 12, 2, dropout=0.3, backend=library.backend, seed=3)
    state = model.state()
    rng = np.random.default_rng(1)
    model.load_state({name: value + 0.3 * rng.standard_normal(value.shape) for name, value in state.items()})
    return model


def answered(model: Any, text: str, reverse: bool) -> tuple[Translation, dict[str, Any]]:
    (answer,) = translate(model, LETTERS, [text], reverse=reverse, max_length=9)
    return answer, {one.name: one for one in attentions(model, LETTERS, answer, reverse=reverse)}


@pytest.mark.parametrize("reverse", [False, True])
def test_between_source_and_answer_as_the_steps_had_it(library: Library, reverse: bool) -> None:
    model = transformer(library)
    for text in TEXTS:
        answer, found = answered(model, text, reverse)
        assert answer.heads is not None
        np.testing.assert_allclose(found["cross"].weights, answer.heads, atol=1e-5)
        assert (found["cross"].queries, found["cross"].keys) == (answer.target_tokens, list(text))
    assert model.training


def test_of_a_recurrent_translator(library: Library) -> None:
    model = AttentionSeq2seq(len(LETTERS), 3, 5, backend=library.backend)
    answer, found = answered(model, "abcd", True)
    assert list(found) == ["cross"]
    np.testing.assert_allclose(found["cross"].weights[0, 0], answer.weights, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_the_decoder_as_the_steps_had_it(library: Library, reverse: bool) -> None:
    model, backend = transformer(library), library.backend
    answer, found = answered(model, "abc", reverse)
    source = list(answer.source_ids)[::-1] if reverse else list(answer.source_ids)
    model.begin(backend.asarray(np.array([source])), None, 9)
    own = found["decoder"]
    assert own.queries == answer.target_tokens
    assert own.keys == LETTERS.names([LETTERS.BOS, *answer.target_ids[:-1]])
    for t, token in enumerate([LETTERS.BOS, *answer.target_ids[:-1]]):
        model.step(backend.asarray(np.array([[token]])))
        for layer, part in enumerate(model.decoder.stack):
            step = backend.to_numpy(part.self_attention.attention_weights)[0, :, 0, :]  # (heads, t + 1)
            np.testing.assert_allclose(own.weights[layer, :, t, : t + 1], step, atol=1e-5)
        assert not own.weights[:, :, t, t + 1 :].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_of_the_encoder_against_float64(reverse: bool) -> None:
    from attnbackends import get_backend

    model = transformer(Library(get_backend("numpy")))
    answer, found = answered(model, "gfedcba", reverse)
    state = {name: value.astype(np.float64) for name, value in model.state().items()}
    ids = np.array(answer.source_ids)
    positions = np.arange(len(ids))[::-1] if reverse else np.arange(len(ids))
    angles = positions[:, None] / 10000 ** (np.arange(0, 8, 2) / 8)
    x = state["source_embed.W"][ids]
    x = x + np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(ids), 8)
    centred = x - x.mean(axis=1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    names = [name for name in state if name.startswith("encoder.0.norm1.")]
    h = h * state[names[0]] + state[names[1]]
    W, b = (state[f"encoder.0.attention.query.{part}"] for part in "Wb")
    q = h @ W + b
    W, b = (state[f"encoder.0.attention.key.{part}"] for part in "Wb")
    k = h @ W + b
    scores = np.einsum("qhd,khd->hqk", q.reshape(-1, 2, 4), k.reshape(-1, 2, 4)) / 2
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found["encoder"].weights[0], expected, atol=1e-5)
    assert found["encoder"].queries == found["encoder"].keys == list("gfedcba")


def test_the_page_in_a_browser(browser: Any, library: Library) -> None:
    model = transformer(library)
    answers = translate(model, LETTERS, TEXTS, reverse=True, max_length=9)
    browser.open(model_page(model, LETTERS, answers, reverse=True, title="three texts"))
    browser.choose("text", "3: gfedcba")
    browser.choose("attention", "encoder")
    browser.choose("layer", "2")
    browser.choose("head", "2")
    browser.token("queries", 4).click()
    own = {one.name: one.weights for one in attentions(model, LETTERS, answers[2], reverse=True)}
    assert browser.table() == {k: float(w) for k, w in enumerate(own["encoder"][1, 1, 4])}


def test_of_a_language_model_against_float64(library: Library) -> None:
    model = CausalLM(len(LETTERS), 8, 2, 16, 1, max_length=16, backend=library.backend, seed=1)
    text = "gfedcba"
    page = text_page(model, LETTERS, [text, "ab"], title="two texts")
    assert "1: gfedcba" in str(page)
    assert "2: ab" in str(page)
    state = {name: value.astype(np.float64) for name, value in model.state().items()}
    model.training = False
    ids = np.array(LETTERS.encode(text))
    model.forward(library.backend.asarray(ids[None]))
    x = state["embed.W"][ids] + state["positions.W"][: len(ids)]
    centred = x - x.mean(axis=1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    names = [name for name in state if name.startswith("blocks.0.norm1.")]
    h = h * state[names[0]] + state[names[1]]
    q, k = (
        h @ state[f"blocks.0.attention.{part}.W"] + state[f"blocks.0.attention.{part}.b"] for part in ("query", "key")
    )
    scores = np.einsum("qhd,khd->hqk", q.reshape(-1, 2, 4), k.reshape(-1, 2, 4)) / 2
    scores = np.where(np.tri(len(ids), dtype=bool), scores, -np.inf)
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    found = library.backend.to_numpy(model.attention_weights["decoder"])
    assert found.shape == (1, 1, 2, len(ids), len(ids))
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="a page needs texts with tokens, got ''"):
        text_page(model, LETTERS, [""], title="")


def test_the_page_of_a_language_model_in_a_browser(browser: Any, library: Library) -> None:
    model = CausalLM(len(LETTERS), 8, 2, 16, 2, max_length=16, backend=library.backend, seed=1)
    browser.open(text_page(model, LETTERS, ["abcdefg"], title="a text"))
    browser.choose("layer", "2")
    browser.choose("head", "2")
    browser.token("queries", 4).click()
    own = library.backend.to_numpy(model.attention_weights["decoder"])[0, 1, 1, 4]
    shown = browser.table()
    assert sum(shown.values()) == pytest.approx(1, abs=1e-6)
    for key, weight in shown.items():
        assert weight == float(own[key])
