"""Texts in, texts out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .data import DataError, Vocabulary, batches_by_length, pad
from .models import Translator

MAX_LENGTH = 200
"""Tokens after which an answer is cut off, if it has not ended by itself."""


@dataclass(frozen=True, eq=False)
class Translation:
    """One answer.

    Attributes
    ----------
    text : str
    source_tokens, target_tokens : list of str
        As they read, whatever the order in which the model took them; the end of the answer included.
    weights : NumPy array (len(target_tokens), len(source_tokens))
        What each token of the answer attended to, the mean over layers and heads where there are several.
    heads : NumPy array (layers, heads, len(target_tokens), len(source_tokens)), optional
        The same for each head of each layer, where there are several.
    source_ids, target_ids : list of int
        The tokens as the vocabulary counts them, in the order of their names.
    """

    text: str
    source_tokens: list[str]
    target_tokens: list[str]
    weights: np.ndarray
    heads: np.ndarray | None = None
    source_ids: Sequence[int] = ()
    target_ids: Sequence[int] = ()


def translate(
    model: Translator,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    *,
    reverse: bool,
    batch_size: int = 500,
    max_length: int = MAX_LENGTH,
    beam_size: int = 1,
) -> list[Translation]:
    """The model's answers to some texts, in their order.

    Parameters
    ----------
    model : Translator
    vocabulary : Vocabulary
        The one that the model was trained with.
    texts : sequence of str
    reverse : bool
        Whether the model was trained on sources read backwards.
    batch_size : int
        Texts that are answered at once at most; those of like length are.
    max_length : int
        Tokens of an answer at most.
    beam_size : int
        Answers that are followed side by side; 1 takes the most probable token at every step.

    Raises
    ------
    DataError
        For an empty text or a token that is not in a closed vocabulary.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more, got {batch_size}")
    rows = [vocabulary.encode(text) for text in texts]
    if not all(rows):
        place = rows.index([])
        raise DataError(f"text {place + 1} has no tokens, got {texts[place]!r}: leave it out")
    answers: dict[int, Translation] = {}
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    for places in batches_by_length(lengths, batch_size):
        padded, _ = pad([rows[place][::-1] if reverse else rows[place] for place in places])
        sources = model.backend.asarray(padded)
        generated = model.generate(
            sources,
            vocabulary.BOS,
            vocabulary.EOS,
            max_length,
            source_mask=sources != vocabulary.PAD,
            beam_size=beam_size,
        )
        all_ids, all_weights = (model.backend.to_numpy(array) for array in generated)
        for place, ids, weights in zip(places.tolist(), all_ids, all_weights, strict=True):
            ends = np.flatnonzero(ids == vocabulary.EOS)
            ids = ids[: ends[0] + 1 if ends.size else None]
            own = weights[: len(ids), ..., : lengths[place]]
            own = own[..., ::-1] if reverse else own
            heads = np.moveaxis(own, 0, 2) if own.ndim == 4 else None  # (L, layers, heads, T) -> (layers, heads, L, T)
            answers[place] = Translation(
                text=vocabulary.decode(ids),
                source_tokens=vocabulary.names(rows[place]),
                target_tokens=vocabulary.names(ids),
                weights=own if heads is None else heads.mean(axis=(0, 1)),
                heads=heads,
                source_ids=[int(one) for one in rows[place]],
                target_ids=ids.tolist(),
            )
    return [answers[place] for place in range(len(texts))]
