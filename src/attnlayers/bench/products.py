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
"""Of a block that is full; half as many backward where a mask is causal, for fewer scores that no row sees."""

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
        self.sets = [self._with_transposed(*inputs) for inputs in self.sets]
        self.again = case.weights_bytes > KEEP_BYTES
        self.forward_pieces = self._pieces(KEYS)
        self.backward_pieces = self._pieces(KEYS // 2 if case.causal else KEYS)

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """None, and the inputs."""
        matmul = self.backend.matmul

        def piece(place: Piece) -> None:
            for q, _, v, _, kT, _ in self._blocks(inputs, place):
                scores = matmul(q, kT)  # (b, r, D) x (b, D, K) -> (b, r, K)
                matmul(scores, v)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, self.forward_pieces)
        return None, inputs

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        """Nothing."""
        matmul = self.backend.matmul

        def piece(place: Piece) -> None:
            for q, k, _, dout, kT, vT in self._blocks(saved, place):
                dscores = matmul(dout, vT)  # (b, r, D) x (b, D, K) -> (b, r, K)
                weights = matmul(q, kT) if self.again else dscores
                matmul(weights.swapaxes(1, 2), dout)  # (b, K, r) x (b, r, D) -> (b, K, D)
                matmul(dscores.swapaxes(1, 2), q)
                matmul(dscores, k)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, self.backward_pieces)
        return ()

    def _pieces(self, keys: int) -> list[Piece]:
        """Entries and keys that go together, and how many rows at a time."""
        case = self.case
        rows = min(case.T_q, BLOCK // keys)
        keys = min(case.T_k, BLOCK // rows)
        entries = max(1, min(BLOCK // (rows * keys), case.batch // PIECES))
        return [(b, k, rows) for b, k in product(_cut(0, case.batch, entries), _cut(0, case.T_k, keys))]

    def _with_transposed(self, q: Any, k: Any, v: Any, dout: Any) -> tuple[Any, ...]:
        kT, vT = k.swapaxes(1, 2), v.swapaxes(1, 2)
        if self.case.T_k > FEW_KEYS:
            kT, vT = (self.backend.xp.ascontiguousarray(x) for x in (kT, vT))
        return q, k, v, dout, kT, vT

    def _blocks(self, inputs: tuple[Any, ...], piece: Piece) -> Iterator[tuple[Any, ...]]:
        """The inputs of some entries and keys, for the rows that see these, some rows at a time."""
        q, k, v, dout, kT, vT = inputs
        b, keys, rows = piece
        first = keys.start if self.case.causal else 0
        for r in _cut(first, self.case.T_q, rows):
            yield q[b, r], k[b, keys], v[b, keys], dout[b, r], kT[b, :, keys], vT[b, :, keys]


def _cut(begin: int, end: int, size: int) -> list[slice]:
    """From `begin` to `end` in slices of `size`."""
    return [slice(a, min(a + size, end)) for a in range(begin, end, size)]
