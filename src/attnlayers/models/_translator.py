"""Answers of a network, token by token: the most probable one, or the best of several that go on side by side."""

from typing import Any

import numpy as np

from attnbackends import Array

from ..functional.arrays import row_shift
from ..functional.dtypes import is_dtype
from ..functional.integers import integer, sizes
from ..layers._composite import set_training
from ._base import Network

END_STEPS = 16
"""Steps between two looks at whether all answers have ended, which wait for a device; up to as many are for nothing."""


class Translator(Network):
    """A network with an encoder and a decoder that goes on step by step.

    What decoding has come to is kept in the network: one batch is answered at a time.

    Attributes
    ----------
    training : bool
        False drops and smooths nothing in `forward`; `generate` never drops.
    """

    training = True

    def _drop(self, training: bool) -> None:
        """Switch dropout within, and smoothing of the loss; `training` stays what it is."""
        for layer in self.layers.values():
            set_training(layer, training)

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

    @property
    def attention_weights(self) -> dict[str, Array]:
        """Weights of the last forward, by the name of what attends: (N, layers, heads, T_q, T_k)."""
        raise TypeError(f"{type(self).__name__} has no attention_weights")

    def begin(self, sources: Array, source_mask: Array | None, max_length: int) -> None:
        """Read sources (N, T_enc), and get ready to answer with `max_length` tokens at most."""
        raise TypeError(f"{type(self).__name__} has no begin")

    def step(self, last: Array) -> Array:
        """Go on after the tokens last (N, 1) -> scores (N, 1, V)."""
        raise TypeError(f"{type(self).__name__} has no step")

    def step_weights(self) -> Array:
        """What the last step attended to: (N, T_enc), or (N, layers, heads, T_enc)."""
        raise TypeError(f"{type(self).__name__} has no step_weights")

    def reorder(self, rows: Array) -> None:
        """Go on with these entries of the batch, rows (N,); an entry is exchanged for one with the same source."""
        raise TypeError(f"{type(self).__name__} has no reorder")

    def generate(
        self,
        sources: Array,
        start_id: int,
        end_id: int,
        max_length: int,
        source_mask: Array | None = None,
        *,
        beam_size: int = 1,
        length_penalty: float = 1.0,
        return_weights: bool = True,
    ) -> tuple[Array, Any]:
        """Answers to a whole batch.

        Parameters
        ----------
        sources : integer array (N, T_enc)
        start_id, end_id : int
            What the decoder reads first, and what ends an answer.
        max_length : int
            Steps at most.
        source_mask : boolean array (N, T_enc), optional
        beam_size : int
            Answers that are followed side by side. With 1, the most probable token is taken at every step. With more,
            every answer in the beam may end at every step: it is set aside then, and takes no place in the beam. The
            search stops when none in the beam can become better than the best that was set aside, or at `max_length`,
            where those in the beam count as they are.
        length_penalty : float
            The answer whose log-probability, divided by ``length**length_penalty``, is largest is returned; its end
            counts as a token. With 0, the most probable one.
        return_weights : bool
            False returns None in the place of the weights. Kernels of attention keep none: to have them, each step
            computes them once more.

        Returns
        -------
        ids : int64 array (N, L), L <= max_length
            After its `end_id` an answer goes on with arbitrary ids until the longest one ends.
        weights : array (N, L, T_enc) or (N, L, layers, heads, T_enc)
            Attention weights of each step, arbitrary after the end.
        """
        max_length, beam_size = sizes(max_length=max_length, beam_size=beam_size)
        start_id, end_id = integer("start_id", start_id), integer("end_id", end_id)
        xp = self.backend.xp
        if is_dtype(self.backend, sources.dtype, "integral"):  # an answer may need larger ids than its source
            sources = xp.astype(sources, xp.int64, copy=False)
        if beam_size > 1:
            found = self._search(sources, start_id, end_id, max_length, source_mask, beam_size, length_penalty)
            return found if return_weights else (found[0], None)
        self.begin(sources, source_mask, max_length)
        last = xp.full_like(sources[:, :1], start_id)
        ended = xp.any(last != start_id, axis=1)
        each = 1 if self.backend.on_host else END_STEPS
        ids: list[Array] = []
        weights: list[Array] = []
        for _ in range(max_length):
            scores = self.step(last)  # (N, 1, V)
            last = xp.astype(xp.argmax(scores, axis=-1), sources.dtype, copy=False)
            ids.append(last)
            if return_weights:
                weights.append(self.step_weights())
            if len(ids) % each == 0:
                ended = ended | xp.any(xp.concat(ids[-each:], axis=1) == end_id, axis=1)
                if bool(xp.all(ended)):
                    break
        return xp.concat(ids, axis=1), xp.stack(weights, axis=1) if return_weights else None

    def _search(
        self,
        sources: Array,
        start_id: int,
        end_id: int,
        max_length: int,
        source_mask: Array | None,
        beam_size: int,
        length_penalty: float,
    ) -> tuple[Array, Array]:
        """Beam search: the network computes N * beam_size rows at a time, the host chooses between them."""
        backend, take = self.backend, self.backend.xp.take
        N = sources.shape[0]
        many = backend.asarray(np.arange(N * beam_size) // beam_size, like=sources)
        sources = take(sources, many, axis=0)
        self.begin(sources, None if source_mask is None else take(source_mask, many, axis=0), max_length)
        last = backend.xp.full_like(sources[:, :1], start_id)
        found = _Finished(N, end_id, max_length, length_penalty)
        totals = np.full((N, beam_size), -np.inf)
        totals[:, :1] = 0.0  # at first there is one answer
        ids = np.zeros((N * beam_size, 0), np.int64)
        weights: Any = None
        for step in range(1, max_length + 1):
            scores = backend.to_numpy(self.step(last))[:, 0, :]  # (N * beam_size, V)
            now = backend.to_numpy(self.step_weights())[:, None]
            weights = now if weights is None else np.concatenate((weights, now), axis=1)
            V = scores.shape[1]
            candidates = totals[..., None] + _log_softmax(scores).reshape(N, beam_size, V)
            found.set_aside(candidates[..., end_id], ids, weights)
            candidates[..., end_id] = -np.inf
            candidates = candidates.reshape(N, beam_size * V)
            best = np.argsort(-candidates, axis=1, kind="stable")[:, :beam_size]  # (N, beam_size)
            totals = np.take_along_axis(candidates, best, axis=1)
            rows = (best // V + np.arange(N)[:, None] * beam_size).reshape(-1)
            ids, weights = np.concatenate((ids[rows], (best % V).reshape(-1, 1)), axis=1), weights[rows]
            if found.cannot_be_beaten(totals, step):
                break
            self.reorder(backend.asarray(rows, like=sources))
            last = backend.asarray(ids[:, -1:], dtype=sources.dtype, like=sources)
        else:
            found.cut_off(totals, ids, weights)
        answers, weights = found.answers(ids, weights)
        return backend.asarray(answers, dtype=sources.dtype, like=sources), backend.asarray(weights, like=sources)


class _Finished:
    """The best answer that has ended, for each entry of a batch; it takes no place in the beam.

    Answers that go on are M = N * beam_size rows, those of one entry side by side.

    Parameters
    ----------
    N : int
        Entries of the batch.
    end_id, max_length, length_penalty
        As in `Translator.generate`.
    """

    def __init__(self, N: int, end_id: int, max_length: int, length_penalty: float) -> None:
        self._end_id, self._max_length, self._penalty = end_id, max_length, length_penalty
        self._merits = np.full(N, -np.inf)
        self._best: list[tuple[np.ndarray, np.ndarray] | None] = [None] * N  # ids (L,), weights (L, ...)

    def set_aside(self, totals: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> None:
        """Let every answer of the beam end here: totals (N, beam_size), ids (M, L - 1), weights (M, L, ...)."""
        ended = np.concatenate((ids, np.full((ids.shape[0], 1), self._end_id)), axis=1)
        self.cut_off(totals, ended, weights)

    def cut_off(self, totals: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> None:
        """Take the answers as they are: totals (N, beam_size), ids (M, L), weights (M, L, ...)."""
        beam_size = totals.shape[1]
        merits = totals / ids.shape[1] ** self._penalty
        for n, place in enumerate(merits.argmax(axis=1)):
            if merits[n, place] > self._merits[n]:
                row = n * beam_size + place
                self._merits[n], self._best[n] = merits[n, place], (ids[row].copy(), weights[row].copy())

    def cannot_be_beaten(self, totals: np.ndarray, length: int) -> bool:
        """Whether no answer (N, beam_size) of that length can go on to become better: none gains log-probability."""
        longest = max((length + 1) ** self._penalty, self._max_length**self._penalty)
        return bool(np.all(self._merits >= totals.max(axis=1) / longest))

    def answers(self, ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N, L) and weights (N, L, ...), ended many times where another is longer; NaN leaves the first of all."""
        beam_size = ids.shape[0] // max(1, len(self._best))
        best = [
            (ids[n * beam_size], weights[n * beam_size]) if found is None else found
            for n, found in enumerate(self._best)
        ]
        L = max((len(own) for own, _ in best), default=ids.shape[1])
        all_ids = np.full((len(best), L), self._end_id)
        all_weights = np.zeros((len(best), L, *weights.shape[2:]), weights.dtype)
        for n, (own, attended) in enumerate(best):
            all_ids[n, : len(own)], all_weights[n, : len(own)] = own, attended
        return all_ids, all_weights


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    scores -= row_shift(np, scores)[1]
    shifted: np.ndarray = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return shifted
