"""Masks as they came: what a block needs of one is found by index, and nothing is copied for each entry or head."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from attnbackends import Array, Backend

from .visibility import Block


class Mask(NamedTuple):
    """A mask or a bias, to be asked for by flat entries and rows.

    Attributes
    ----------
    backend : Backend
    array : array (M, G or 1, T_q or 1, T_k or 1)
        A copy, since backward may look at it again: M of the B flat entries have one of their own, and so may the G
        query heads that share a key head.
    T_q : int
    lead, own : tuple of int
        Leading axes of the keys, of B entries in all, and those of the mask among them, of M; some of these are 1.
    of : NumPy array (B,) or None
        Which of the M an entry has, where M is neither 1 nor B.
    """

    backend: Backend
    array: Array
    T_q: int
    lead: tuple[int, ...]
    own: tuple[int, ...]
    of: np.ndarray | None

    @classmethod
    def from_shape(
        cls, backend: Backend, mask: Array, lead: tuple[int, ...], groups: int, T_q: int, *, boolean: bool
    ) -> Mask:
        """The mask of a call whose output has the leading axes `lead`, the last of them times `groups`."""
        xp = backend.xp
        if boolean:  # what was broadcast before holds nothing new; the gradient of a bias has a place for it
            strides = getattr(mask, "strides", ())
            if 0 in strides:
                mask = mask[tuple([slice(0, 1) if stride == 0 else slice(None) for stride in strides])]
        shape = (1,) * (len(lead) + 2 - mask.ndim) + tuple(mask.shape)
        *own, rows, keys = shape
        heads = 1
        if groups > 1 and own[-1] > 1:
            own[-1], heads = lead[-1], groups
        array = xp.reshape(xp.astype(mask, mask.dtype, copy=True), (prod(own), heads, rows, keys))
        of = None
        if prod(own) not in (1, prod(lead)):
            of = np.broadcast_to(np.arange(prod(own)).reshape(own), lead).reshape(-1)
        return cls(backend, array, T_q, lead, tuple(own), of)

    def part(self, block: Block) -> Array:
        """What a block needs, (b or 1, r or 1, K or 1)."""
        array = self._of_rows(self.array, block)
        if self.of is None:
            return array[block.entries, ...] if array.shape[0] > 1 else array
        entries = self.of[block.entries]
        first, last = (int(entries[0]), int(entries[-1])) if len(entries) else (0, -1)
        if (entries == first).all():
            return array[first : first + 1, ...]
        if last - first + 1 == len(entries) and (np.diff(entries) == 1).all():
            return array[first : last + 1, ...]
        return self.backend.xp.take(array, self.backend.asarray(entries, like=array), axis=0)

    def add_gradient(self, block: Block, dscores: Array, total: Array) -> None:
        """Add the gradient of a block's scores (b, r, K) to `total`, of the shape of the array."""
        xp, part = self.backend.xp, self._of_rows(total, block)
        axes = tuple([axis for axis in (1, 2) if part.shape[axis] == 1 and dscores.shape[axis] != 1])
        d = xp.sum(dscores, axis=axes, keepdims=True) if axes else dscores
        if self.of is None:
            if part.shape[0] == 1:
                part += xp.sum(d, axis=0, keepdims=True)
            else:
                part[block.entries, ...] += d
        elif d.shape[0] == prod(self.lead):
            among = tuple([axis for axis, length in enumerate(self.own) if length == 1])
            d = xp.sum(xp.reshape(d, (*self.lead, *d.shape[1:])), axis=among)
            part += xp.reshape(d, part.shape)
        else:
            for i, entry in enumerate(self.of[block.entries]):
                part[entry : entry + 1, ...] += d[i : i + 1, ...]

    def flat(self) -> Array:
        """(B or 1, R or T_q or 1, T_k or 1), for what knows an entry and a row by one stride each."""
        array = self.array
        if self.of is not None:
            array = self.backend.xp.take(array, self.backend.asarray(self.of, like=array), axis=0)
        return self._of_all_rows(array)

    def by_entry(self) -> tuple[Array, int]:
        """(M, R or T_q or 1, T_k or 1), and `each`: entry b has number ``b // each % M``.

        Nothing is copied for each entry, unless axes that share one lie between axes that do not.
        """
        apart = [axis for axis, length in enumerate(self.own) if length > 1]
        if self.of is None or any(self.own[i] < self.lead[i] for i in range(apart[0], apart[-1])):
            return self.flat(), 1
        return self._of_all_rows(self.array), prod(self.lead[apart[-1] + 1 :])

    def _of_all_rows(self, array: Array) -> Array:
        """(M, G or 1, T_q or 1, T_k or 1) -> (M, R or T_q or 1, T_k or 1)."""
        xp = self.backend.xp
        entries, heads, rows, keys = array.shape
        if heads > 1 and rows < self.T_q:
            array, rows = xp.broadcast_to(array, (entries, heads, self.T_q, keys)), self.T_q
        return xp.reshape(array, (entries, heads * rows, keys))

    def _of_rows(self, array: Array, block: Block) -> Array:
        """The rows and keys of a block; it lies within one query head: (M, r or 1, K or 1)."""
        rows, keys = block.rows, block.keys
        head = rows.start // self.T_q if array.shape[1] > 1 and self.T_q else 0
        begin = rows.start % self.T_q if array.shape[2] > 1 else 0
        some: Any = slice(begin, begin + rows.stop - rows.start) if array.shape[2] > 1 else slice(None)
        return array[:, head, some, keys if array.shape[3] > 1 else slice(None)]
