"""How good a model is on pairs that it has not learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..data import IGNORE, Batch, PairDataset
from ..models import Translator


class Evaluation:
    """Loss and answers, summed over batches.

    Parameters
    ----------
    model : Translator
    data : PairDataset
        Held-out pairs, with batches on the device of the model.
    free_text : bool
        Whether answers are compared with chrF as well, and may be longer than what is expected.

    Attributes
    ----------
    loss : float
        Mean for each token, without dropout and smoothing.
    accuracy : float
        Share of answers that are exactly what is expected.
    chrf : float or None
        A score of 100 at most, over all answers at once; None without `free_text`.
    """

    def __init__(self, model: Translator, data: PairDataset, *, free_text: bool) -> None:
        self.model, self.data, self.free_text = model, data, free_text
        self.loss = self.accuracy = 0.0
        self.chrf: float | None = None

    def batches(self, batch_size: int) -> Iterator[int]:
        """Go through all pairs; yields how many batches are done. The attributes are right after the last one."""
        losses, tokens, right = 0.0, 0, 0
        answers: list[str] = [""] * len(self.data)
        for done, batch in enumerate(self.data.batches(batch_size), 1):
            losses += self._loss(batch) * batch.num_tokens
            tokens += batch.num_tokens
            ids = self._answers(batch)
            right += exact_matches(ids, self.model.backend.to_numpy(batch.labels))
            for place, row in zip(batch.indices, ids, strict=True):
                answers[place] = self.data.vocabulary.decode(row)
            yield done
        self.loss, self.accuracy = losses / tokens, right / len(answers)
        if self.free_text:
            self.chrf = chrf(answers, [target for _, target in self.data.pairs])

    def _loss(self, batch: Batch) -> float:
        self.model.training = False
        try:
            with np.errstate(all="ignore"):
                return float(self.model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask))
        finally:
            self.model.training = True

    def _answers(self, batch: Batch) -> np.ndarray:
        vocabulary = self.data.vocabulary
        expected = int(batch.labels.shape[1])
        # An answer that goes on after all that is expected is wrong; only to chrF it matters what it goes on with.
        length = 2 * expected if self.free_text else expected
        ids, _ = self.model.generate(
            batch.sources, vocabulary.BOS, vocabulary.EOS, length, source_mask=batch.source_mask
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
