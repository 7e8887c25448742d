"""From the arguments of `attention`, as they come, to the flat form that the core works on, and back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from attnbackends import Array, Backend

from .._check import broadcasts, check
from .._integers import integers, sides
from .masks import Mask
from .plan import Visibility

if TYPE_CHECKING:
    from .core import Core

Shape = tuple[int, ...]


class Frame(NamedTuple):
    """Shapes of one call: leading axes become one, B, and query heads that share a key head further rows.

    Attributes
    ----------
    lead : tuple of int
        Leading axes of keys and values, after broadcasting.
    groups : int
        Query heads for each key head; 1 unless grouped.
    T_q, T_k : int
    shapes : dict of str to tuple
        Of q, k and v (and mask and sinks, once they were flattened) as they came.
    """

    lead: Shape
    groups: int
    T_q: int
    T_k: int
    shapes: dict[str, Shape]

    @classmethod
    def of(cls, q: Array, k: Array, v: Array | None, grouped: bool) -> Self:
        """Read the shapes off the arguments."""
        given = {"q": q, "k": k} | ({} if v is None else {"v": v})
        shapes = {name: tuple(array.shape) for name, array in given.items()}
        leads = {name: shape[:-2] for name, shape in shapes.items()}
        groups = 1
        if grouped:
            if not all(leads.values()):
                raise ValueError(f"`grouped` needs a head axis before time in q, k and v, got {_listed(shapes)}")
            heads, key_heads = leads["q"][-1], leads["k"][-1]
            if key_heads == 0 or heads % key_heads:
                raise ValueError(f"the query heads must be a multiple of the key heads {key_heads}, got {heads}")
            groups = heads // key_heads
            leads["q"] = (*leads["q"][:-1], key_heads)
        try:
            distinct = set(leads.values())
            lead = distinct.pop() if len(distinct) == 1 else np.broadcast_shapes(*leads.values())
        except ValueError:
            raise ValueError(
                f"the leading axes of {', '.join(shapes)} must broadcast to one shape, got {_listed(shapes)}"
            ) from None
        return cls(lead, groups, shapes["q"][-2], shapes["k"][-2], shapes)

    @property
    def batch(self) -> int | None:
        """N, the length of the first axis; None where that axis is the one of grouped heads, or there is none."""
        return self.lead[0] if len(self.lead) > (self.groups > 1) else None

    @property
    def rows(self) -> int:
        return self.groups * self.T_q

    def _out_lead(self) -> Shape:
        """Leading axes of the output."""
        return (*self.lead[:-1], self.lead[-1] * self.groups) if self.groups > 1 else self.lead

    def flatten(self, xp: Any, x: Array) -> Array:
        """(..., T, D) -> (B, T, D)."""
        given, full = tuple(x.shape), (*self.lead, *x.shape[-2:])
        flat = (prod(self.lead), *full[-2:])
        if given == flat:
            return x
        return xp.reshape(x if given == full else xp.broadcast_to(x, full), flat)

    def flatten_queries(self, xp: Any, q: Array) -> Array:
        """(..., T_q, D) -> (B, R, D)."""
        if self.groups > 1:
            q = xp.reshape(q, (*q.shape[:-3], self.lead[-1], self.rows, q.shape[-1]))
        return self.flatten(xp, q)

    def flatten_mask(self, backend: Backend, mask: Array, *, boolean: bool) -> Mask:
        """A mask that broadcasts to (..., T_q, T_k), for flat entries and rows."""
        given, full = tuple(mask.shape), (*self._out_lead(), self.T_q, self.T_k)
        if not broadcasts(given, full):
            raise ValueError(f"`mask` must broadcast to (..., T_q, T_k) = {full}, got {given}")
        self.shapes["mask"] = given
        return Mask.from_shape(backend, mask, self.lead, self.groups, self.T_q, boolean=boolean)

    def flatten_sinks(self, xp: Any, sinks: Array) -> Array:
        """Anything that broadcasts to the leading axes of the output -> (B, R, 1)."""
        lead = self._out_lead()
        if not broadcasts(tuple(sinks.shape), lead):
            raise ValueError(f"`sinks` must broadcast to the leading axes {lead}, got {tuple(sinks.shape)}")
        self.shapes["sinks"] = tuple(sinks.shape)
        every = xp.broadcast_to(xp.broadcast_to(sinks, lead)[..., None], (*lead, self.T_q))
        return xp.reshape(every, (prod(self.lead), self.rows, 1))

    def unflatten_sinks_gradient(self, xp: Any, gradient: Array) -> Array:
        """The gradient of the sinks, in their own shape."""
        per_row = xp.reshape(gradient, (*self._out_lead(), self.T_q))
        return _sum_to(xp, xp.sum(per_row, axis=-1), self.shapes["sinks"])

    def unflatten(self, xp: Any, x: Array) -> Array:
        """(B, R, ·) -> (..., T_q, ·)."""
        shape = (*self._out_lead(), self.T_q, x.shape[-1])
        return x if tuple(x.shape) == shape else xp.reshape(x, shape)

    def unflatten_gradient(self, xp: Any, gradient: Array, name: str) -> Array:
        """(B, ·, ·) -> the shape of q, k or v, summed over what was broadcast."""
        shape = self.shapes[name]
        if name == "q" and self.groups > 1:
            heads = (*shape[:-3], self.lead[-1], self.rows, shape[-1])
            summed = _sum_to(xp, xp.reshape(gradient, (*self.lead, self.rows, shape[-1])), heads)
            return xp.reshape(summed, shape)
        if tuple(gradient.shape) == shape:
            return gradient
        return _sum_to(xp, xp.reshape(gradient, (*self.lead, *gradient.shape[1:])), shape)

    def flatten_gradient(self, core: Core, name: str, gradient: Array, last: Shape) -> Array:
        """An incoming gradient (..., T_q, *last) -> (B, R, · or 1)."""
        check(q=(core.q, "*"), **{name: (gradient, "*")})
        shape = (*self._out_lead(), self.T_q, *last)
        if tuple(gradient.shape) != shape:
            raise ValueError(
                f"`{name}` must have the shape of what the forward pass returned, {shape}, got {tuple(gradient.shape)}"
            )
        flat = (prod(self.lead), self.rows, *(last or (1,)))
        return gradient if shape == flat else core.backend.xp.reshape(gradient, flat)


def visibility(
    frame: Frame,
    causal: bool = False,
    query_start: int | str | Sequence[int] | Array | None = None,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Array | Sequence[int] | None = None,
    offsets: Any = None,
) -> Visibility:
    """What positions hide, from the options of `attention`; nothing by default."""
    T_q, T_k, N = frame.T_q, frame.T_k, frame.batch
    left, right = sides(window)
    if causal:
        right = 0
    lengths = None
    if key_lengths is not None:
        if offsets is not None:
            raise ValueError("`key_lengths` and `offsets` exclude each other: offsets say where sequences end")
        lengths = integers("key_lengths", key_lengths)
        if N is None:
            raise ValueError(f"`key_lengths` needs a batch axis before the others, got q {frame.shapes['q']}")
        if lengths.shape != (N,):
            raise ValueError(f"`key_lengths` must have shape (N,) = ({N},), the first axis, got {lengths.shape}")
        if lengths.min(initial=0) < 0 or lengths.max(initial=0) > T_k:
            raise ValueError(f"`key_lengths` must lie in 0 .. T_k = {T_k}, got {lengths.tolist()}")
    both = None
    if offsets is not None:
        pair = offsets if isinstance(offsets, tuple) and len(offsets) == 2 and np.ndim(offsets[0]) else (offsets,) * 2
        both = _offsets("queries", pair[0], T_q), _offsets("keys", pair[1], T_k)
        if len(both[0]) != len(both[1]):
            raise ValueError(f"`offsets` of queries and keys must be as many, got {len(both[0])} and {len(both[1])}")
    given = _start(query_start, T_q, T_k, N, lengths, both)
    if left is None and right is None:
        start = np.zeros(1, np.int64)
    elif given is None:
        raise ValueError(
            "`query_start` must be given where queries and keys differ in number: 'start', 'end', or a position"
        )
    else:
        start = given
    if 0 in frame.lead:  # positions of no entry at all
        start, lengths = np.zeros(1, np.int64), None
    # A side that reaches past all keys from every position is no limit, however large a number says so.
    if left is not None and left >= int(start.max()) + T_q - 1:
        left = None
    if right is not None and right >= T_k - 1 - int(start.min()):
        right = None
    entries_each = prod(frame.lead[1:]) if N is not None else prod(frame.lead)
    return Visibility(T_q, T_k, entries_each, frame.groups, start, left, right, lengths, both, {})


def _start(
    query_start: int | str | Sequence[int] | Array | None,
    T_q: int,
    T_k: int,
    N: int | None,
    lengths: np.ndarray | None,
    offsets: tuple[np.ndarray, ...] | None,
) -> np.ndarray | None:
    """Position of the first query: for all, for each entry, or for each packed sequence; None if it must be given."""
    if offsets is not None:
        queries, keys = (np.diff(ends) for ends in offsets)
        same = bool(np.all(queries == keys))
    else:
        queries, keys = np.array([T_q]), np.array([T_k]) if lengths is None else lengths
        same = T_q == T_k and lengths is None
    if query_start is None:
        return np.zeros(1, np.int64) if same else None
    if isinstance(query_start, str):
        if query_start not in ("start", "end"):
            raise ValueError(f"`query_start` must be 'start', 'end' or integers, got {query_start!r}")
        return np.zeros(1, np.int64) if query_start == "start" else np.asarray(keys - queries)
    start = np.atleast_1d(integers("query_start", query_start))
    many = N if offsets is None else len(queries)
    if start.shape not in ((1,), (many,)):
        raise ValueError(f"`query_start` must be an integer or have shape ({many or 'N'},), got shape {start.shape}")
    return start


def _offsets(name: str, values: Any, total: int) -> np.ndarray:
    ends = integers("offsets", values)
    if ends.ndim != 1 or ends.size < 2 or ends[0] != 0 or ends[-1] != total or np.any(np.diff(ends) < 0):
        raise ValueError(f"`offsets` of the {name} must rise from 0 to {total}, got {ends.tolist()}")
    return ends


def _sum_to(xp: Any, x: Array, shape: Shape) -> Array:
    """Sum over the axes that were broadcast from `shape`."""
    extra = x.ndim - len(shape)
    stretched = [axis + extra for axis, length in enumerate(shape) if length == 1 and x.shape[axis + extra] != 1]
    axes = (*range(extra), *stretched)
    return xp.reshape(xp.sum(x, axis=axes), shape) if axes else x


def _listed(shapes: dict[str, Shape]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
