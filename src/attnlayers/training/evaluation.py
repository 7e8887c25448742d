"""How good a model is on pairs that it has not learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..data import IGNORE, Batch, PairDataset
from ..distributed import Ranks
from ..layers._composite import not_training
from ..models import Translator


class _Found(NamedTuple):
    """What a batch comes to: its number, mean loss, tokens, exact matches, and answers with their places."""

    number: int
    loss: float
    tokens: int
    right: int
    answers: list[tuple[int, str]]


class Evaluation:
    """Loss and answers, summed over batches.

    Parameters
    ----------
    model : Translator
    data : PairDataset
        Held-out pairs, with batches on the device of the model.
    free_text : bool
        Whether answers are compared with chrF as well, and may be longer than what is expected.
    ranks : Ranks, optional
        Share the batches out; the attributes are the same on all, and the same as those of one process.

    Attributes
    ----------
    loss : float
        Mean for each token, without dropout and smoothing.
    accuracy : float
        Share of answers that are exactly what is expected.
    chrf : float or None
        A score of 100 at most, over all answers at once; None without `free_text`.
    """

    def __init__(self, model: Translator, data: PairDataset, *, free_text: bool, ranks: Ranks | None = None) -> None:
        self.model, self.data, self.free_text = model, data, free_text
        self.ranks = ranks or Ranks()
        self.loss = self.accuracy = 0.0
        self.chrf: float | None = None

    def batches(self, batch_size: int) -> Iterator[int]:
        """Go through all pairs; yields how many batches are done. The attributes are right after the last one.

        Every rank is asked for as many rounds.
        """
        rank, size, number = self.ranks.rank, self.ranks.size, self.data.num_batches(batch_size)
        own = self.data.batches(batch_size, start=min(rank, number), step=size)
        found: list[_Found] = []
        for begun in range(0, number, size):
            if begun + rank < number:
                found.append(self._evaluate(begun + rank, next(own)))
            yield min(begun + size, number)
        # In the order of the batches, so that sums have the same bits for any number of ranks.
        everywhere = sorted((one for some in self.ranks.gather(found) for one in some), key=lambda one: one.number)
        self.loss = sum(one.loss * one.tokens for one in everywhere) / sum(one.tokens for one in everywhere)
        self.accuracy = sum(one.right for one in everywhere) / len(self.data)
        if self.free_text:
            answers = dict(answer for one in everywhere for answer in one.answers)
            expected = [target for _, target in self.data.pairs]
            own_chrf = chrf([answers[place] for place in range(len(expected))], expected) if self.ranks.first else None
            self.chrf = self.ranks.broadcast(own_chrf)

    def _evaluate(self, number: int, batch: Batch) -> _Found:
        loss, ids = self._loss(batch), self._answers(batch)
        right = exact_matches(ids, self.model.backend.to_numpy(batch.labels))
        texts = map(self.data.vocabulary.decode, ids) if self.free_text else ()
        answers = list(zip(batch.indices.tolist(), texts, strict=False))
        return _Found(number, loss, batch.num_tokens, right, answers)

    def _loss(self, batch: Batch) -> float:
        with not_training(self.model), np.errstate(all="ignore"):
            return float(self.model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask))

    def _answers(self, batch: Batch) -> np.ndarray:
        vocabulary = self.data.vocabulary
        expected = int(batch.labels.shape[1])
        # An answer that goes on after all that is expected is wrong; only to chrF it matters what it goes on with.
        length = 2 * expected if self.free_text else expected
        ids, _ = self.model.generate(
            batch.sources, vocabulary.BOS, vocabulary.EOS, length, source_mask=batch.source_mask, return_weights=False
        )
        return self.model.backend.to_numpy(ids)


def chrf(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of character n-grams, up to 6, that answers and what is expected have in common, of 100.

    References
    ----------
    Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015; as the library sacrebleu computes it.
    """
    from sacrebleu.metrics.chrf import CHRF

    score: float = CHRF().corpus_score(answers, [expected]).score
    return score


def exact_matches(ids: np.ndarray, labels: np.ndarray) -> int:
    """How many answers are right to their end.

    Parameters
    ----------
    ids : integer array (N, L)
        What was generated.
    labels : integer array (N, T)
        What is right; -1 after the end.
    """
    length = labels.shape[1]
    padded = np.full(labels.shape, IGNORE - 1)
    padded[:, : ids.shape[1]] = ids[:, :length]
    return int(np.sum(np.all((padded == labels) | (labels == IGNORE), axis=1)))
