"""The matrix products of attention and nothing else: the floor of ours, whatever it does between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from attnbackends import Backend, PackedKeys

from ..functional._attention import KEEP_BYTES
from .cases import Case, Inputs
from .contenders import OnBackend

PRODUCTS = "products"

BLOCK_SCORES = 2**18
"""Scores of a block at most."""

BLOCK_KEYS = 256
"""Keys of a block that is full; half as many where a mask is causal, for fewer scores that no row sees."""

Piece = tuple[slice, slice, int]

FEWEST_PIECES = 4
"""Pieces to make of the entries at least, for cores to share."""


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
        self.again = case.weights_bytes > KEEP_BYTES
        self.pieces = self._pieces(BLOCK_KEYS // 2 if case.causal else BLOCK_KEYS)
        self._packed = {id(inputs): self._pack(inputs) for inputs in self.sets}

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """None, and the inputs."""
        matmul, pieces = self.backend.matmul, self._packed[id(inputs)]

        def piece(i: int) -> None:
            place, packed_k, _ = pieces[i]
            for q, _, v, _ in self._blocks(inputs, place):
                weights = packed_k.scores(q, place[1], 1.0)  # (b, r, D) x (b, K, D) -> (b, r, K)
                matmul(weights, v)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, range(len(pieces)))
        return None, inputs

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        """Nothing."""
        matmul, pieces = self.backend.matmul, self._packed[id(saved)]

        def piece(i: int) -> None:
            place, packed_k, packed_v = pieces[i]
            for q, k, _, dout in self._blocks(saved, place):
                dscores = packed_v.scores(dout, place[1], 1.0)  # (b, r, D) x (b, K, D) -> (b, r, K)
                weights = packed_k.scores(q, place[1], 1.0) if self.again else dscores
                matmul(weights.swapaxes(1, 2), dout)  # (b, K, r) x (b, r, D) -> (b, K, D)
                matmul(dscores.swapaxes(1, 2), q)
                matmul(dscores, k)  # (b, r, K) x (b, K, D) -> (b, r, D)

        self.backend.map(piece, range(len(pieces)))
        return ()

    def _pieces(self, keys: int) -> list[Piece]:
        """Entries and keys that go together, and how many rows at a time."""
        case = self.case
        rows = min(case.T_q, BLOCK_SCORES // keys)
        keys = min(case.T_k, BLOCK_SCORES // rows)
        entries = max(1, min(BLOCK_SCORES // (rows * keys), case.batch // FEWEST_PIECES))
        return [(b, k, rows) for b, k in product(_cut(0, case.batch, entries), _cut(0, case.T_k, keys))]

    def _pack(self, inputs: tuple[Any, ...]) -> list[tuple[Piece, PackedKeys, PackedKeys]]:
        """The pieces, each with its entries' keys and values as the backend reads them fastest."""
        packed: dict[int, tuple[PackedKeys, PackedKeys]] = {}
        for entries, _, _ in self.pieces:
            if entries.start not in packed:
                packed[entries.start] = (
                    self.backend.pack_keys(inputs[1][entries]),
                    self.backend.pack_keys(inputs[2][entries]),
                )
        return [(place, *packed[place[0].start]) for place in self.pieces]

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
