"""One call of attention, known once: its operands in flat form, its options, and the blocks that they make."""

from __future__ import annotations

from math import inf, isfinite, sqrt
from typing import Any, NamedTuple

from attnbackends import Array, Backend, current_share

from ..arrays import or_zero
from ..dtypes import widen
from ..integers import integer
from .blocks import Chain, Cut
from .form import Form
from .masks import Mask
from .visibility import Block, Visibility

SAFE_SCORE = 36.0
"""Largest score that needs no shift: neither exp(36), summed over any row, nor a weight, exp(-36) over the sum of
16,000 times exp(36), leaves float32."""


class Problem(NamedTuple):
    """One call of attention; leading axes are flat (B), heads that share keys stand as further rows (R).

    Attributes
    ----------
    backend : Backend
    q : array (B, R, D)
    k : array (B, T_k, D)
    v : array (B, T_k, D_v) or None
        None where keys are the values.
    scale : float
    visibility : Visibility
        What positions hide.
    mask : Mask or None
        Boolean, True = attend.
    bias : Mask or None
        Added to the scores.
    softcap : float or None
    sinks : array (B, R, 1) or None
        In `dtype`.
    dropout : float
    seed : int
    first_entry : int
        Where the entries stand among those of the whole batch, for what dropout draws (`share_of_batch`).
    dtype : dtype
        To compute in: float32 for half precision.
    itemsize : int
        Bytes of a number in it.
    operand_dtype : dtype
        In which the backend takes what it multiplies.
    is_half : bool
        Whether that is half precision.
    may_hide : bool
        Whether there may be queries that attend to nothing, or keys that no query of an entry attends to.
    keep_bytes : int
        Bytes of weights that may be kept for backward.
    cut : Cut
        The blocks, once they are asked for: a library with an attention of its own needs none.
    """

    backend: Backend
    q: Array
    k: Array
    v: Array | None
    scale: float
    visibility: Visibility
    mask: Mask | None
    bias: Mask | None
    softcap: float | None
    sinks: Array | None
    dropout: float
    seed: int
    first_entry: int
    dtype: Any
    itemsize: int
    operand_dtype: Any
    is_half: bool
    may_hide: bool
    keep_bytes: int
    cut: Cut

    @classmethod
    def of(
        cls,
        backend: Backend,
        form: Form,
        q: Array,
        k: Array,
        v: Array | None,
        scale: float,
        mask: Array | None = None,
        bias: Array | None = None,
        softcap: float | None = None,
        sinks: Array | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
        keep_bytes: int = 0,
    ) -> Problem:
        """Hold the options against each other, and flatten the arguments."""
        if softcap is not None and not softcap > 0:
            raise ValueError(f"`softcap` must be positive, got {softcap}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}")
        if dropout and seed is None:
            raise ValueError(
                "`dropout` needs a `seed`, another one for each call: the same seed drops the same weights"
            )
        xp, (layout, is_flat, visibility, dtype, itemsize, operand_dtype, is_half, may_hide) = backend.xp, form
        if not is_flat:
            q, k = layout.flatten_queries(xp, q), layout.flatten(xp, k)
            v = None if v is None else layout.flatten(xp, v)
        share, B = current_share(), q.shape[0]
        return cls(
            backend,
            q,
            k,
            v,
            scale,
            visibility,
            None if mask is None else layout.flatten_mask(backend, "mask", mask),
            None if bias is None else layout.flatten_mask(backend, "bias", bias),
            None if softcap == inf else softcap,
            None if sinks is None else widen(backend, layout.flatten_sinks(xp, sinks)),
            dropout,
            0 if seed is None else integer("seed", seed),
            0 if share is None else share.start(B),
            dtype,
            itemsize,
            operand_dtype,
            is_half,
            may_hide or mask is not None,
            keep_bytes,
            Cut(backend, visibility, B, itemsize, layout.q[-1] + layout.v[-1]),
        )

    @property
    def values(self) -> Array:
        return self.k if self.v is None else self.v

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights in the dtype to compute in."""
        B, R, _ = self.q.shape
        return int(B * R * self.k.shape[1] * self.itemsize)

    def empty_rows(self, width: int) -> Array:
        """Room for results (B, R, width) in the dtype to compute in."""
        return self.backend.empty((*self.q.shape[:2], width), like=self.q, dtype=self.dtype)

    # -- operands

    def keys(self, chain: Chain) -> tuple[Array, Array]:
        """Keys and values of a chain's entries, as operands.

        A key that none of its queries attends to comes as 0 if it holds anything but numbers: that would meet a weight
        of 0 in the products, and 0 * NaN is NaN.
        """
        backend, xp = self.backend, self.backend.xp
        k = self.operand(self.k[chain.entries, ...])
        v = k if self.v is None else self.operand(self.v[chain.entries, ...])
        if self._may_spread(k) or (self.v is not None and self._may_spread(v)):
            seen = backend.empty((*k.shape[:2], 1), like=k, dtype=xp.bool)
            seen[...] = False
            for block in chain.blocks:
                seen[:, block.keys, :] |= xp.any(self._attended(block), axis=-2, keepdims=True).mT
            k = or_zero(backend, seen, k)
            v = k if self.v is None else or_zero(backend, seen, v)
        return k, v

    def queries(self, block: Block) -> Array:
        """The queries of a block, as operands; one that attends to nothing as `keys` does it."""
        q = self.operand(self.q[block.entries, block.rows, :])
        if self._may_spread(q):
            q = or_zero(self.backend, self.backend.xp.any(self._attended(block), axis=-1, keepdims=True), q)
        return q

    def operand(self, x: Array) -> Array:
        """An array in the dtype in which the backend multiplies; itself where it has that already."""
        return x if x.dtype == self.operand_dtype else self.backend.xp.astype(x, self.operand_dtype)

    def _may_spread(self, x: Array) -> bool:
        """Whether there are weights of 0 that might meet a NaN or an infinity in x."""
        xp = self.backend.xp
        return self.may_hide and not (self.backend.on_host and bool(xp.all(xp.isfinite(x))))

    # -- what is seen

    def hide(self, block: Block, array: Array, value: float) -> None:
        """Write a value to what the mask or a position hides."""
        backend = self.backend
        if self.mask is not None:
            backend.fill(array, ~self.mask.part(block), value)
        for columns, hidden in block.hidden():
            backend.fill(array[:, :, columns], backend.asarray(hidden, like=array), value)

    def _attended(self, block: Block) -> Array:
        """Which keys of a block its queries attend to: boolean (b, r, K)."""
        shape = tuple(part.stop - part.start for part in (block.entries, block.rows, block.keys))
        attended = self.backend.empty(shape, like=self.q, dtype=self.backend.xp.bool)
        attended[...] = True
        self.hide(block, attended, False)
        return attended

    # -- scores and weights

    def is_bounded(self, chain: Chain) -> bool:
        """Whether the norms of queries and keys say that no score of a chain needs a shift before exp."""
        free = self.bias is None and self.sinks is None and self.softcap is None and self.backend.on_host
        if not free or 0 in (*self.q.shape, self.k.shape[1]):
            return False
        norms = [_largest_norm(self.backend, widen(self.backend, x[chain.entries, ...])) for x in (self.q, self.k)]
        return abs(self.scale) * norms[0] * norms[1] <= SAFE_SCORE

    def are_bounded(self, block: Block, scores: Array) -> bool:
        """Whether scores say themselves that none of them needs a shift before exp: where they are fewer than operands.

        Hidden ones are overwritten before: what they hold must not decide about the bits of the others.
        """
        if self.bias is not None or self.sinks is not None or not self.backend.on_host or 0 in scores.shape:
            return False
        self.hide(block, scores, 0.0)
        xp = self.backend.xp
        low, high = float(xp.min(scores)), float(xp.max(scores))
        if not isfinite(high - low):
            numbers = _numbers(self.backend, scores)
            low, high = float(xp.min(numbers)), float(xp.max(numbers))
        return low >= -SAFE_SCORE and high <= SAFE_SCORE

    def add_bias(self, block: Block, scores: Array) -> Array | None:
        """Cap and bias scores in place; returns the slope of `cap`."""
        slope = self.cap(scores)
        if self.bias is not None:
            scores += widen(self.backend, self.bias.part(block))
        return slope

    def cap(self, scores: Array) -> Array | None:
        """Cap scores in place; returns the derivative of the capped ones, None where there is no cap."""
        if self.softcap is None:
            return None
        scores *= 1 / self.softcap
        self.backend.apply(self.backend.xp.tanh, scores)
        slope = 1 - scores * scores
        scores *= self.softcap
        return slope

    @property
    def stream(self) -> int:
        """The key of the numbers that dropout draws: one that no generator of that seed has."""
        return 2**64 + self.seed % 2**64

    def dropped(self, block: Block, weights: Array) -> Array:
        """What dropout multiplies the weights of a block by, however they are cut into blocks: drawn anew each time."""
        entries = slice(block.entries.start + self.first_entry, block.entries.stop + self.first_entry)
        index = entries, block.rows, block.keys
        kept = self.backend.uniform(self.stream, index, self.q.shape[1], self.k.shape[1], like=weights) >= self.dropout
        return self.backend.xp.astype(kept, weights.dtype) * (1 / (1 - self.dropout))


def inverse_of(xp: Any, total: Array) -> Array:
    """One over the totals of rows; 0 for a row that sees nothing, whose total is 0."""
    empty = total == 0
    return xp.where(empty, total, 1 / xp.where(empty, xp.ones_like(total), total))


def _largest_norm(backend: Backend, x: Array) -> float:
    """The largest norm of the rows of x (b, T, D).

    NaN and infinity spoil their own rows whatever is done, and are no reason to treat others in another way.
    """
    square = float(backend.xp.max(backend.vecdot(x, x)))
    if not isfinite(square):
        numbers = _numbers(backend, x)
        square = float(backend.xp.max(backend.vecdot(numbers, numbers)))
    return sqrt(square)


def _numbers(backend: Backend, x: Array) -> Array:
    """x with 0 for NaN and infinity."""
    return or_zero(backend, backend.xp.isfinite(x), x)
