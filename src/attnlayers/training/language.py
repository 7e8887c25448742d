"""Training of a language model: what the trainer asks of a model, and what held-out text tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from attnbackends import Array, Backend

from ..data import Batch, TextDataset
from ..distributed import Ranks
from ..layers._composite import not_training
from ..models import CausalLM
from ..translation import Translation

PICTURED_TOKENS = 40
"""Tokens of a held-out text whose attention is drawn."""


class TextModel:
    """A language model as the trainer takes a model: it has no sources, and its loss is that of the next token.

    Parameters
    ----------
    lm : CausalLM
    """

    def __init__(self, lm: CausalLM) -> None:
        self.lm = lm
        self.params = lm.params

    @property
    def grads(self) -> list[Array]:
        """Parallel to `params`."""
        return self.lm.grads

    @property
    def backend(self) -> Backend:
        """Where the parameters live."""
        return self.lm.backend

    @property
    def training(self) -> bool:
        """False drops nothing."""
        return self.lm.training

    @training.setter
    def training(self, training: bool) -> None:
        self.lm.training = training

    def forward(self, sources: Array, inputs: Array, labels: Array, source_mask: Array | None = None) -> Array:
        """inputs (N, T), labels (N, T) -> loss (), on the device."""
        return self.lm.loss(inputs, labels)

    def backward(self) -> None:
        """Gradients of all parameters."""
        self.lm.loss_backward()

    def reseed(self, *seed: int) -> None:
        """What is dropped from here on is a function of these numbers."""
        self.lm.reseed(*seed)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the parameters by name, on the host."""
        return self.lm.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Overwrite all parameters."""
        self.lm.load_state(state)


class Likelihood:
    """How well a language model foresees held-out text.

    Parameters
    ----------
    model : TextModel
    data : TextDataset
    ranks : Ranks, optional
        Share the batches out; the loss is the same on all, and the same as that of one process.

    Attributes
    ----------
    loss : float
        Mean for each token, without dropout.
    accuracy, chrf : None
        A text has no right answer.
    """

    accuracy = chrf = None

    def __init__(self, model: TextModel, data: TextDataset, *, ranks: Ranks | None = None) -> None:
        self.model, self.data, self.loss = model, data, 0.0
        self.ranks = ranks or Ranks()

    def batches(self, batch_size: int) -> Iterator[int]:
        """Go through all windows; yields how many batches are done. The loss is right after the last one.

        Every rank is asked for as many rounds.
        """
        rank, size, number = self.ranks.rank, self.ranks.size, self.data.num_batches(batch_size)
        own = self.data.batches(batch_size, start=min(rank, number), step=size)
        found: list[tuple[int, float, int]] = []
        for begun in range(0, number, size):
            if begun + rank < number:
                batch = next(own)
                found.append((begun + rank, self._loss(batch) * batch.num_tokens, batch.num_tokens))
            yield min(begun + size, number)
        # In the order of the batches, so that sums have the same bits for any number of ranks.
        everywhere = sorted(one for some in self.ranks.gather(found) for one in some)
        self.loss = sum(loss for _, loss, _ in everywhere) / sum(tokens for _, _, tokens in everywhere)

    def _loss(self, batch: Batch) -> float:
        with not_training(self.model), np.errstate(all="ignore"):
            return float(self.model.forward(batch.sources, batch.inputs, batch.labels))


def attention_of(model: TextModel, data: TextDataset) -> list[Translation]:
    """What the first tokens of a held-out text attend to, drawn as its translation into the tokens that follow."""
    lm, window = model.lm, data.windows[0][: PICTURED_TOKENS + 1]
    window = window[window >= 0]
    ids, following = window[:-1], window[1:]
    with not_training(lm):
        lm.forward(lm.backend.asarray(ids[None]))
    heads = lm.backend.to_numpy(lm.attention_weights["decoder"])[0].astype(np.float32)  # (layers, heads, T, T)
    names = data.vocabulary.names
    return [Translation(data.vocabulary.decode(following), names(ids), names(following), heads.mean((0, 1)), heads)]
