"""What a model attends to, as a page: a translator while it answered, a language model while it read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Vocabulary
from ..layers._composite import not_training
from ..models import CausalLM, Translator
from ..translation import Translation
from .page import Page
from .weights import Attention

MAX_NAME = 60
"""Characters of a text by which it is chosen."""


def model_page(
    model: Translator, vocabulary: Vocabulary, answers: Sequence[Translation], *, reverse: bool, title: str
) -> Page:
    """All attentions of a model in its answers: within encoder and decoder, and between them, as far as it has them.

    Parameters
    ----------
    model : Translator
    vocabulary : Vocabulary
        The one that the model was trained with.
    answers : sequence of Translation
        What `translate` returned.
    reverse : bool
        Whether the model was trained on sources read backwards; the page has them as they read.
    title : str
    """
    texts = []
    for number, answer in enumerate(answers, 1):
        text = vocabulary.decode(answer.source_ids)
        texts.append((_name(number, text), attentions(model, vocabulary, answer, reverse=reverse)))
    return Page(texts, title)


def text_page(model: CausalLM, vocabulary: Vocabulary, texts: Sequence[str], *, title: str) -> Page:
    """What each token of some texts attends to among the tokens before it and itself, in every layer and head.

    Parameters
    ----------
    model : CausalLM
    vocabulary : Vocabulary
        The one that the model was trained with.
    texts : sequence of str
    title : str

    Raises
    ------
    ValueError
        For a text without a token, or with more of them than the model has positions.
    """
    named = []
    for number, text in enumerate(texts, 1):
        ids = vocabulary.encode(text)
        if not ids:
            raise ValueError(f"a page needs texts with tokens, got {text!r}")
        with not_training(model):
            model.forward(model.backend.asarray(np.array([ids], dtype=np.int64)))
        weights = np.asarray(model.backend.to_numpy(model.attention_weights["decoder"])[0], dtype=np.float32)
        tokens = vocabulary.names(ids)
        named.append((_name(number, text), [Attention("decoder", weights, tokens, tokens, ("token", "text so far"))]))
    return Page(named, title)


def _name(number: int, text: str) -> str:
    """What a text is chosen by."""
    return f"{number}: {text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + '…'}"


def attentions(model: Translator, vocabulary: Vocabulary, answer: Translation, *, reverse: bool) -> list[Attention]:
    """What a model's steps attended to while it answered, found by one forward over the whole answer."""
    source = np.array([answer.source_ids], dtype=np.int64)
    labels = np.array([answer.target_ids], dtype=np.int64)
    inputs = np.concatenate(([[vocabulary.BOS]], labels[:, :-1]), axis=1)
    with not_training(model):
        model.forward(*map(model.backend.asarray, (source[:, ::-1].copy() if reverse else source, inputs, labels)))
    read = vocabulary.names(inputs[0])
    # The step that writes a token has read the one before it.
    tokens = {
        "encoder": (answer.source_tokens, answer.source_tokens, ("source", "source")),
        "decoder": (answer.target_tokens, read, ("target", "target so far")),
        "cross": (answer.target_tokens, answer.source_tokens, ("target", "source")),
    }
    found = []
    for name, weights in model.attention_weights.items():
        own = np.asarray(model.backend.to_numpy(weights)[0], dtype=np.float32)  # (layers, heads, T_q, T_k)
        if reverse:
            own = own[..., ::-1] if name == "cross" else own[..., ::-1, ::-1] if name == "encoder" else own
        queries, keys, sides = tokens[name]
        found.append(Attention(name, own, queries, keys, sides))
    return found[::-1]  # what connects source and target first
