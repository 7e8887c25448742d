"""The matrix products of attention and nothing else: the floor of ours, whatever it does between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from attnbackends import Backend

from ..functional._attention import KEEP_BYTES
from .cases import Case, Inputs
from .contenders import OnBackend

PRODUCTS = "products"

BLOCK = 2**18
"""Scores of a block at most."""

KEYS = 256
"""Of a block that is full; half as many where a mask is causal, for fewer scores that no row sees. From so many on, and
more than one query, `Backend.pack_keys` lays them out better than a transposed copy does."""

FEW_KEYS = 32
"""Up to so many are read faster as they lie than from a transposed copy."""

Piece = tuple[slice, slice, int]

PIECES = 4
"""To make of the entries at least, for cores to share."""


class Products(OnBackend):
    """Products of as many numbers as attention multiplies, block by block, with no other pass over any of them.

    Two forward and four backward; five where attention makes its weights again by default, as it must to stay in its
    memory. What is read faster in another order is copied before; no results are added up or kept, so that there are
    none to compare. Causal: of each block of keys the rows from its first key on.

    Parameters
    ----------
    case : Case
    sets : sequence of inputs
    backend : Backend
    """

    def __init__(self, case: Case, sets: Sequence[Inputs], backend: Backend) -> None:
        super().__init__(case, sets, backend)
        self.sets = [(*inputs, self._arranged(inputs[1]), self._arranged(inputs[2])) for inputs in self.sets]
        self.again = case.weights_bytes > KEEP_BYTES
        self.pieces = self._pieces(KEYS // 2 if case.causal else KEYS)

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """None, and the inputs."""
        matmul = self.backend.matmul

        def piece(place: Piece) -> None:
            b, keys, _ = place
            k_arranged = inputs[4][b]
            for q, _, v, _ in self._blocks(inputs, place):
                weights = k_packed[b.start].scores(q, keys, 1.0)  # (b, r, D) x (b, D, K) -> (b, r, K)
                matmul(weights, v)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, self.pieces)
        return None, inputs

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        """Nothing."""
        matmul = self.backend.matmul

        def piece(place: Piece) -> None:
            b, keys, _ = place
            k_arranged, v_arranged = saved[4][b], saved[5][b]
            for q, k, _, dout in self._blocks(saved, place):
                dscores = scores(dout, v_arranged, keys)  # (b, r, D) x (b, D, K) -> (b, r, K)
                weights = scores(q, k_arranged, keys) if self.again else dscores
                matmul(weights.swapaxes(1, 2), dout)  # (b, K, r) x (b, r, D) -> (b, K, D)
                matmul(dscores.swapaxes(1, 2), q)
                matmul(dscores, k)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, self.pieces)
        return ()

    def _pieces(self, keys: int) -> list[Piece]:
        """Entries and keys that go together, and how many rows at a time."""
        case = self.case
        rows = min(case.T_q, BLOCK // keys)
        keys = min(case.T_k, BLOCK // rows)
        entries = max(1, min(BLOCK // (rows * keys), case.batch // PIECES))
        return [(b, k, rows) for b, k in product(_cut(0, case.batch, entries), _cut(0, case.T_k, keys))]

    def _arranged(self, keys: Any) -> Any:
        """Keys or values as `Backend.scores` reads them fastest."""
        if self.case.T_k >= KEYS and self.case.T_q > 1:
            return self.backend.arrange_keys(keys)
        transposed = keys.swapaxes(1, 2)
        return self.backend.xp.ascontiguousarray(transposed) if self.case.T_k > FEW_KEYS else transposed

    def _blocks(self, inputs: tuple[Any, ...], piece: Piece) -> Iterator[tuple[Any, ...]]:
        """The inputs of some entries and keys, for the rows that see these, some rows at a time."""
        q, k, v, dout = inputs[:4]
        b, keys, rows = piece
        first = keys.start if self.case.causal else 0
        for r in _cut(first, self.case.T_q, rows):
            yield q[b, r], k[b, keys], v[b, keys], dout[b, r]


def _cut(begin: int, end: int, size: int) -> list[slice]:
    """From `begin` to `end` in slices of `size`."""
    return [slice(a, min(a + size, end)) for a in range(begin, end, size)]
