"""Which token comes next, from its logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..functional.integers import integer


class Sampler:
    """Draws a token for each row of logits, on the host.

    Parameters
    ----------
    temperature : float
        Logits are divided by it; 0 takes the most probable token.
    top_k : int, optional
        Draw from the `top_k` most probable tokens, and from those that are as probable as the last of them.
    top_p : float, optional
        Draw from the fewest tokens, most probable first, that have this probability together.
    seed : int, or one for each row
        With one seed, row i draws from a stream of its own, whatever other rows are there.
    rows : int
    """

    def __init__(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int | Sequence[int], rows: int
    ) -> None:
        if not 0 <= temperature < np.inf:
            raise ValueError(f"`temperature` must be 0 or more, got {temperature}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"`top_p` must lie in (0, 1], got {top_p}")
        self.top_k = None if top_k is None else integer("top_k", top_k, least=1)
        self.temperature, self.top_p = float(temperature), top_p
        if isinstance(seed, Sequence | np.ndarray):
            if len(seed) != rows:
                raise ValueError(f"`seed` must be a number or one for each of {rows} prompts, got {len(seed)}")
            keys = [(integer("seed", own, least=0), 0) for own in seed]
        else:
            keys = [(integer("seed", seed, least=0), row) for row in range(rows)]
        self._draws = [np.random.default_rng(key) for key in keys]

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """logits (N, V) -> ids (N,)."""
        wide = logits.astype(np.float64)
        return np.array([self._draw(row, rng) for row, rng in zip(wide, self._draws, strict=True)], np.int64)

    def _draw(self, logits: np.ndarray, rng: np.random.Generator) -> int:
        candidates = np.arange(logits.size)
        if self.top_k is not None and self.top_k < logits.size:
            least = np.partition(logits, -self.top_k)[-self.top_k]
            candidates = np.flatnonzero(logits >= least)
        # Divided last: a small temperature may not make a difference of logits infinite.
        weights = np.exp((logits[candidates] - logits[candidates].max()) / self.temperature)
        if self.top_p is not None and self.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            kept = np.sort(order[before < self.top_p * weights.sum()])
            candidates, weights = candidates[kept], weights[kept]
        reached = np.cumsum(weights)
        if not np.isfinite(reached[-1:]).all():
            raise ValueError("the logits must be finite to draw from, got NaN or infinity: the weights have diverged")
        place = int(np.searchsorted(reached, rng.random() * reached[-1], side="right"))
        return int(candidates[min(place, len(candidates) - 1)])
