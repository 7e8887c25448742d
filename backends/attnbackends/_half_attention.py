"""Attention in half precision as a few products, in blocks of rows: nothing is cast up or copied to be multiplied.

Scores and their gradients come out of the products in float32 and go into the next one rounded to the dtype of the
arguments; everything is summed in float32. Backward makes the weights again from the statistics of their rows: the
largest score is subtracted, and the division by the sum is made where rounding passes over the block in any case.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._attention import AttentionCall, visible_keys
from ._base import Array, Backend
from ._cublas import Products

BLOCK = 2**27
"""Bytes of everything that has the shape of scores, at a time."""

BYTES_EACH = 12
"""Bytes for each score: scores, their gradients, and both of them rounded."""

LIMITED_ROWS = 512
"""Rows of a block where positions hide keys: the fewer, the more keys no row of the block sees."""


class Sight:
    """Which keys the rows of a call see by position and by the number of valid keys; its mask comes on top.

    Attributes
    ----------
    first, last : NumPy arrays (B or 1, R)
        A row with ``first > last`` sees nothing.
    """

    def __init__(self, call: AttentionCall) -> None:
        R, T_k = call.q.shape[1], call.k.shape[1]
        position = np.atleast_1d(call.start)[:, None] + np.arange(R) % call.T_q
        lengths = None if call.lengths is None else call.lengths[:, None]
        self.first, self.last = np.broadcast_arrays(
            *visible_keys(position, slice(0, T_k), call.left, call.right, lengths)
        )
        self.all_see = bool((self.first <= self.last).all())

    def part(self, entries: slice, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """`first` and `last` of some rows of some entries."""
        entries = entries if len(self.first) > 1 else slice(None)
        return self.first[entries, rows], self.last[entries, rows]

    def keys(self, entries: slice, rows: slice) -> slice:
        """The keys that at least one of the rows sees, and those between them."""
        first, last = self.part(entries, rows)
        sees = first <= last
        return slice(int(first[sees].min()), int(last[sees].max()) + 1) if sees.any() else slice(0, 0)


class HalfAttention:
    """Forward and backward for one backend, whose hooks they serve.

    Parameters
    ----------
    backend : Backend
    products : Products
    """

    def __init__(self, backend: Backend, products: Products) -> None:
        self._backend, self._products = backend, products

    def takes(self, call: AttentionCall) -> bool:
        """Whether it is in half precision, and the device multiplies that."""
        return bool(call.q.dtype.itemsize == 2 and self._products.takes(call.q.dtype))

    def forward(self, call: AttentionCall, out: Array, stats: Array) -> bool:
        """See `Backend.attention`."""
        if not self.takes(call):
            return False
        backend, xp, sight = self._backend, self._backend.xp, Sight(call)
        shift, inverse = stats
        v = self._seen(call, sight, call.v)
        for entries, pieces in self._blocks(call):
            for rows in pieces:
                place, keys = (entries, rows, slice(None)), sight.keys(entries, rows)
                if keys.start == keys.stop:
                    out[place] = shift[place] = inverse[place] = 0
                    continue
                scores = self._scores(call, sight, call.q[place], call.k, entries, rows, keys)
                top = xp.max(scores, axis=-1, keepdims=True)
                top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
                scores -= top
                backend.apply(xp.exp, scores)
                total = xp.sum(scores, axis=-1, keepdims=True)
                each = xp.where(total == 0, total, 1 / total)
                weights = xp.astype(scores, call.q.dtype)
                product = self._products(weights, v[entries, keys, :])  # (b, r, K) x (b, K, D_v) -> (b, r, D_v)
                product *= each
                out[place], shift[place], inverse[place] = product, top, each
        return True

    def backward(
        self,
        call: AttentionCall,
        out: Array,
        stats: Array,
        dout: Array,
        dlse: Array | None,
        dq: Array,
        dk: Array,
        dv: Array | None,
    ) -> bool:
        """See `Backend.attention_backward`."""
        if not self.takes(call):
            return False
        xp, sight, times = self._backend.xp, Sight(call), self._products
        k = self._seen(call, sight, call.k)
        v = k if call.v is call.k else self._seen(call, sight, call.v)
        single, (shift, inverse) = xp.float32, stats
        for entries, pieces in self._blocks(call):
            into_k = xp.zeros(dk[entries, ...].shape, dtype=single)
            into_v = into_k if dv is None else xp.zeros(dv[entries, ...].shape, dtype=single)
            for rows in pieces:
                place, keys = (entries, rows, slice(None)), sight.keys(entries, rows)
                if keys.start == keys.stop:
                    dq[place] = 0
                    continue
                q, d = self._queries(call, sight, inverse, place), dout[place]
                weights = self._scores(call, sight, q, k, entries, rows, keys)
                weights -= shift[place]
                self._backend.apply(xp.exp, weights)
                rounded = xp.matrix_transpose(self._rounded(weights, inverse[place], q))
                times(rounded, d, into_v[:, keys, :], add=True)  # (b, K, r) x (b, r, D_v) -> (b, K, D_v)
                dscores = times(d, xp.matrix_transpose(v[entries, keys, :]))  # (b, r, K)
                delta = xp.sum(xp.multiply(d, out[place], dtype=single), axis=-1, keepdims=True)
                dscores -= delta if dlse is None else delta - dlse[place]
                dscores *= weights
                rounded = self._rounded(dscores, inverse[place], q)
                times(rounded, k[entries, keys, :], dq[place], scale=call.scale)  # (b, r, K) x (b, K, D) -> (b, r, D)
                times(xp.matrix_transpose(rounded), q, into_k[:, keys, :], scale=call.scale, add=True)
            dk[entries, ...] = into_k
            if dv is not None:
                dv[entries, ...] = into_v
        return True

    def _rounded(self, block: Array, factor: Array, like: Array) -> Array:
        """A block times the factor (b, r, 1) of each row, in the dtype of `like`, in one pass."""
        rounded = self._backend.empty(block.shape, like=like)
        return self._backend.xp.multiply(block, factor, out=rounded, casting="unsafe")

    def _scores(
        self, call: AttentionCall, sight: Sight, q: Array, k: Array, entries: slice, rows: slice, keys: slice
    ) -> Array:
        """Scaled scores (b, r, K) of a block in float32, -inf where a row does not see a key."""
        backend, xp = self._backend, self._backend.xp
        kT = xp.matrix_transpose(k[entries, keys, :])
        scores: Array = self._products(q, kT, scale=call.scale)  # (b, r, D) x (b, D, K) -> (b, r, K)
        if call.mask is not None:
            mask, place = call.mask, scores
            if mask.shape[1] == call.T_q < rows.stop - rows.start:  # one mask for all heads that share keys
                place, mask = scores.reshape(-1, call.groups, call.T_q, scores.shape[-1]), mask[:, None, :, :]
            elif mask.shape[1] > 1:
                begin = rows.start % mask.shape[1]
                mask = mask[:, begin : begin + rows.stop - rows.start, :]
            mask = mask[entries if mask.shape[0] > 1 else slice(None), ..., keys if mask.shape[-1] > 1 else slice(None)]
            backend.fill(place, ~mask, -xp.inf)
        first, last = sight.part(entries, rows)
        # Between the two edges every row sees every key.
        edges = slice(keys.start, int(first.max())), slice(max(int(last.min()) + 1, keys.start), keys.stop)
        for edge, limit, hides in zip(edges, (first, last), (xp.less, xp.greater), strict=True):
            if edge.start < min(edge.stop, keys.stop):
                count = min(edge.stop, keys.stop) - edge.start
                begin = edge.start - keys.start
                index = edge.start + backend.arange(count, like=scores)
                hidden = hides(index, backend.asarray(limit[..., None], like=scores))  # (b or 1, r, count)
                backend.fill(scores[:, :, begin : begin + count], hidden, -xp.inf)
        return scores

    def _seen(self, call: AttentionCall, sight: Sight, x: Array) -> Array:
        """Keys or values, 0 in place of what no query sees: it might be NaN, and 0 * NaN is NaN.

        Where all entries see the same keys and there is no mask, blocks leave out what is not seen, and it is `x`.
        """
        backend, xp = self._backend, self._backend.xp
        seen = None if call.mask is None else xp.any(call.mask, axis=1)[..., None]  # (B or 1, T_k or 1, 1)
        if len(sight.first) > 1:
            ranges = [sight.keys(slice(b, b + 1), slice(None)) for b in range(len(x))]
            index = backend.arange(x.shape[1], like=x)[None, :, None]
            begin, end = (
                backend.asarray(np.array(ends)[:, None, None], like=x)
                for ends in ([keys.start for keys in ranges], [keys.stop for keys in ranges])
            )
            within = (index >= begin) & (index < end)
            seen = within if seen is None else seen & within
        return x if seen is None else self._or_zero(seen, x)

    def _queries(self, call: AttentionCall, sight: Sight, inverse: Array, place: tuple[slice, ...]) -> Array:
        """The queries of a block, 0 in place of one that sees nothing."""
        q = call.q[place]
        if call.mask is None and sight.all_see:
            return q
        return self._or_zero(inverse[place] != 0, q)

    def _or_zero(self, keep: Array, x: Array) -> Array:
        """`x` where a boolean says so, else 0, in its dtype: CuPy's `where` makes float32 of bfloat16."""
        return self._backend.xp.where(keep, x, self._backend.zero(like=x)).astype(x.dtype, copy=False)

    def _blocks(self, call: AttentionCall) -> Iterator[tuple[slice, list[slice]]]:
        """Entries, and their rows in slices that fit in memory: all of them, or parts of one query head."""
        (B, R, _), T_k, T_q = call.q.shape, call.k.shape[1], call.T_q
        row_bytes = BYTES_EACH * T_k
        at_once = max(1, min(self._backend.rows_at_once(row_bytes), BLOCK // row_bytes))
        most = at_once if call.left is call.right is None else min(at_once, LIMITED_ROWS)
        if at_once >= R and T_q <= most:
            size, pieces = R, [slice(0, R)]
        else:
            size = min(T_q, most)
            pieces = [
                slice(head + row, head + min(row + size, T_q))
                for head in range(0, R, T_q)
                for row in range(0, T_q, size)
            ]
        each = max(1, at_once // size)
        for b in range(0, B, each):
            yield slice(b, min(b + each, B)), pieces
