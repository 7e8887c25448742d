"""Keys laid out once for many products with queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._dtypes import float_bits

if TYPE_CHECKING:
    from ._base import Backend

Array = Any


class PackedKeys:
    """Keys (b, T, D), or with a column of ones (b, T, D + 1), for products with queries.

    Parameters
    ----------
    backend : Backend
    k : array (b, T, D)
        As `Backend.matmul` takes it.
    ones : bool
    """

    def __init__(self, backend: Backend, k: Array, ones: bool) -> None:
        self._backend = backend
        if ones:
            column = backend.empty((*k.shape[:2], 1), like=k)
            column[...] = 1
            k = backend.xp.concat((k, column), axis=-1)
        self._turned = k.mT  # (b, D, T)

    def scores(self, q: Array, keys: slice, scale: float) -> Array:
        """``scale * q @ k.T`` (b, r, K) of queries (b, r, D) and some keys, in float32 or better, to be written to."""
        half = float_bits(self._backend.xp, q.dtype) < 32  # where a scaled query would be rounded
        scores = self._backend.matmul(q if half or scale == 1 else q * scale, self._turned[:, :, keys])
        if half and scale != 1:
            scores *= scale
        return scores

    def exp_scores(self, q: Array, keys: slice, scale: float, out: Array | None = None) -> Array:
        """``exp`` of `scores`, for scores that neither overflow nor vanish, in `out` where that is given."""
        scores = self._backend.apply(self._backend.xp.exp, self.scores(q, keys, scale))
        if out is None:
            return scores
        out[...] = scores
        return out
