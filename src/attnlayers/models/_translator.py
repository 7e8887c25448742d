"""Answers of a network, token by token: the most probable one, or the best of several that go on side by side."""

from typing import Any

import numpy as np

from attnbackends import Array

from ..layers._composite import switch_dropout
from ._base import Network


class Translator(Network):
    """A network with an encoder and a decoder that goes on step by step.

    What decoding has come to is kept in the network: one batch is answered at a time.

    Attributes
    ----------
    train_flg : bool
        False drops and smooths nothing in `forward`; `generate` never drops.
    """

    train_flg = True

    def _drop(self, flag: bool) -> None:
        """Switch dropout within, and smoothing of the loss; `train_flg` stays what it is."""
        for layer in self.layers.values():
            switch_dropout(layer, flag)

    def forward(self, sources: Array, inputs: Array, labels: Array, source_mask: Array | None = None) -> Array:
        """Mean loss of predicting `labels` from `sources` and what comes before.

        Parameters
        ----------
        sources : integer array (N, T_enc)
        inputs : integer array (N, T_dec)
            What the decoder reads.
        labels : integer array (N, T_dec)
            What it must answer; -1 does not count.
        source_mask : boolean array (N, T_enc), optional
            False where `sources` is padding, which stands on the right.

        Returns
        -------
        loss : array ()
            On the device.
        """
        raise TypeError(f"{type(self).__name__} has no forward")

    def begin(self, sources: Array, source_mask: Array | None, max_length: int) -> None:
        """Read sources (N, T_enc), and get ready to answer with `max_length` tokens at most."""
        raise TypeError(f"{type(self).__name__} has no begin")

    def step(self, last: Array) -> Array:
        """Go on after the tokens last (N, 1) -> scores (N, 1, V)."""
        raise TypeError(f"{type(self).__name__} has no step")

    def step_weights(self) -> Array:
        """What the last step attended to: (N, T_enc), or (N, layers, heads, T_enc)."""
        raise TypeError(f"{type(self).__name__} has no step_weights")

    def keep(self, rows: Array) -> None:
        """Go on with these entries of the batch, rows (N,); an entry is exchanged for one with the same source."""
        raise TypeError(f"{type(self).__name__} has no keep")

    def generate(
        self,
        sources: Array,
        start_id: int,
        end_id: int,
        max_length: int,
        source_mask: Array | None = None,
        *,
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> tuple[Array, Array]:
        """Answers to a whole batch.

        Parameters
        ----------
        sources : integer array (N, T_enc)
        start_id, end_id : int
            What the decoder reads first, and what ends an answer.
        max_length : int
            Steps at most.
        source_mask : boolean array (N, T_enc), optional
        beam : int
            Answers that are followed side by side. With 1, the most probable token is taken at every step.
        length_penalty : float
            Of the answers in the beam, the one whose log-probability divided by ``length**length_penalty`` is
            largest is returned.

        Returns
        -------
        ids : integer array (N, L), L <= max_length
            After its `end_id` an answer goes on with arbitrary ids until the longest one ends.
        weights : array (N, L, T_enc) or (N, L, layers, heads, T_enc)
            Attention weights of each step.
        """
        for name, value in (("max_length", max_length), ("beam", beam)):
            if value < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {value}")
        if beam > 1:
            return self._search(sources, start_id, end_id, max_length, source_mask, beam, length_penalty)
        xp = self.backend.xp
        self.begin(sources, source_mask, max_length)
        last = xp.full_like(sources[:, :1], start_id)
        ended = last != start_id
        ids: list[Array] = []
        weights: list[Array] = []
        for _ in range(max_length):
            scores = self.step(last)  # (N, 1, V)
            last = xp.astype(xp.argmax(scores, axis=-1), sources.dtype, copy=False)
            ids.append(last)
            weights.append(self.step_weights())
            ended = ended | (last == end_id)
            if (self.backend.reading_is_free or len(ids) % 16 == 0) and bool(xp.all(ended)):
                break
        return xp.concat(ids, axis=1), xp.stack(weights, axis=1)

    def _search(
        self,
        sources: Array,
        start_id: int,
        end_id: int,
        max_length: int,
        source_mask: Array | None,
        beam: int,
        length_penalty: float,
    ) -> tuple[Array, Array]:
        """Beam search; the network computes N * beam rows at a time, the choice between them is made on the host."""
        backend, take = self.backend, self.backend.xp.take
        N = sources.shape[0]
        each = np.arange(N * beam) // beam
        many = backend.asarray(each, like=sources)
        mask = None if source_mask is None else take(source_mask, many, axis=0)
        self.begin(take(sources, many, axis=0), mask, max_length)
        last = backend.xp.full_like(take(sources, many, axis=0)[:, :1], start_id)
        totals = np.where(np.arange(N * beam) % beam == 0, 0.0, -np.inf)  # at first a beam holds one answer
        ids = np.zeros((N * beam, 0), np.int64)
        weights: Any = None
        for _ in range(max_length):
            scores = backend.to_numpy(self.step(last))[:, 0, :]  # (N beam, V)
            now = backend.to_numpy(self.step_weights())[:, None]
            ended = np.any(ids == end_id, axis=1)
            gains = _log_softmax(scores)
            gains[ended] = -np.inf
            gains[ended, end_id] = 0  # what has ended stays in the beam as it is
            V = gains.shape[1]
            candidates = (totals[:, None] + gains).reshape(N, beam * V)
            best = np.argsort(-candidates, axis=1, kind="stable")[:, :beam]  # (N, beam)
            totals = np.take_along_axis(candidates, best, axis=1).reshape(-1)
            rows = (best // V + np.arange(N)[:, None] * beam).reshape(-1)
            ids = np.concatenate((ids[rows], (best % V).reshape(-1, 1)), axis=1)
            weights = now[rows] if weights is None else np.concatenate((weights[rows], now[rows]), axis=1)
            if np.all(np.any(ids == end_id, axis=1)):
                break
            self.keep(backend.asarray(rows, like=sources))
            last = backend.asarray(ids[:, -1:], dtype=sources.dtype, like=sources)
        is_end = ids == end_id
        lengths = np.where(is_end.any(axis=1), is_end.argmax(axis=1) + 1, ids.shape[1])
        merits = (totals / lengths**length_penalty).reshape(N, beam)
        chosen = np.arange(N) * beam + merits.argmax(axis=1)
        answers = backend.asarray(ids[chosen], dtype=sources.dtype, like=sources)
        return answers, backend.asarray(weights[chosen], like=sources)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    shifted: np.ndarray = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return shifted
