"""Shapes of one call of attention: from its arguments as they come to flat form, and back."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Self

import numpy as np

from attnbackends import Array, Backend, backend_of

from ..checks import broadcasts, check
from .masks import Mask

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """Shapes of one call: leading axes become one, B, and query heads that share a key head further rows, R.

    Attributes
    ----------
    lead : tuple of int
        Leading axes of keys and values, after broadcasting.
    groups : int
        Query heads for each key head; 1 unless grouped.
    q, k, v : tuple of int
        Shapes of the arguments as they came.
    out : tuple of int
        Shape of the output but for its last axis, (..., T_q).
    """

    lead: Shape
    groups: int
    q: Shape
    k: Shape
    v: Shape
    out: Shape

    @classmethod
    def of(cls, q: Shape, k: Shape, v: Shape | None, grouped: bool) -> Self:
        """From the shapes of the arguments; v is None where keys are the values."""
        shapes = {name: shape for name, shape in (("q", q), ("k", k), ("v", v)) if shape is not None}
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
            distinct = set(leads.values())  # NumPy takes as long as a small product
            lead = distinct.pop() if len(distinct) == 1 else np.broadcast_shapes(*leads.values())
        except ValueError:
            raise ValueError(
                f"the leading axes of {', '.join(shapes)} must broadcast to one shape, got {_listed(shapes)}"
            ) from None
        out = (*lead[:-1], lead[-1] * groups, q[-2]) if grouped else (*lead, q[-2])
        return cls(lead, groups, q, k, k if v is None else v, out)

    @property
    def is_flat(self) -> bool:
        """Whether all arguments are in flat form as they come."""
        flat = (prod(self.lead),)
        return self.groups == 1 and self.q[:-2] == self.k[:-2] == self.v[:-2] == flat

    @property
    def T_q(self) -> int:
        return self.q[-2]

    @property
    def T_k(self) -> int:
        return self.k[-2]

    @property
    def rows(self) -> int:
        return self.groups * self.T_q

    @property
    def batch(self) -> int | None:
        """N, the length of the first axis; None where that axis is the one of grouped heads, or there is none."""
        return self.lead[0] if len(self.lead) > (self.groups > 1) else None

    # -- arguments to flat form

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

    def flatten_mask(self, backend: Backend, name: str, mask: Array) -> Mask:
        """A mask or a bias that broadcasts to (..., T_q, T_k), for flat entries and rows."""
        given, full = tuple(mask.shape), (*self.out, self.T_k)
        if not broadcasts(given, full):
            raise ValueError(f"`{name}` must broadcast to (..., T_q, T_k) = {full}, got {given}")
        return Mask.from_shape(backend, mask, self.lead, self.groups, self.T_q, boolean=name == "mask")

    def flatten_sinks(self, xp: Any, sinks: Array) -> Array:
        """Anything that broadcasts to the leading axes of the output -> (B, R, 1)."""
        lead = self.out[:-1]
        if not broadcasts(tuple(sinks.shape), lead):
            raise ValueError(f"`sinks` must broadcast to the leading axes {lead}, got {tuple(sinks.shape)}")
        every = xp.broadcast_to(xp.broadcast_to(sinks, lead)[..., None], self.out)
        return xp.reshape(every, (prod(self.lead), self.rows, 1))

    def flatten_gradient(self, backend: Backend, name: str, gradient: Array, like: Array, last: Shape) -> Array:
        """An incoming gradient (..., T_q, *last) -> (B, R, · or 1); `like` are the flat queries of the forward pass."""
        if type(gradient) is type(like) and gradient.dtype == like.dtype:
            backend_of(q=like, **{name: gradient})  # all that `check` would ask besides, in half of its time
        else:
            check(q=(like, "*"), **{name: (gradient, "*")})
        shape = (*self.out, *last)
        if gradient.shape != shape:
            raise ValueError(
                f"`{name}` must have the shape of what the forward pass returned, {shape}, got {tuple(gradient.shape)}"
            )
        flat = (*like.shape[:2], *(last or (1,)))
        return gradient if shape == flat else backend.xp.reshape(gradient, flat)

    # -- results from flat form

    def unflatten(self, xp: Any, x: Array) -> Array:
        """(B, R, ·) -> (..., T_q, ·)."""
        shape = (*self.out, x.shape[-1])
        return x if tuple(x.shape) == shape else xp.reshape(x, shape)

    def unflatten_query_gradient(self, xp: Any, gradient: Array) -> Array:
        """(B, R, D) -> the shape of q, summed over what was broadcast."""
        if self.groups == 1:
            return self.unflatten_key_gradient(xp, gradient, self.q)
        by_key_head = (*self.q[:-3], self.lead[-1], self.rows, self.q[-1])
        every = xp.reshape(gradient, (*self.lead, self.rows, self.q[-1]))
        return xp.reshape(sum_to(xp, every, by_key_head), self.q)

    def unflatten_key_gradient(self, xp: Any, gradient: Array, shape: Shape) -> Array:
        """(B, T, ·) -> the shape of k or v, summed over what was broadcast."""
        if tuple(gradient.shape) == shape:
            return gradient
        return sum_to(xp, xp.reshape(gradient, (*self.lead, *gradient.shape[1:])), shape)

    def unflatten_sinks_gradient(self, xp: Any, gradient: Array, shape: Shape) -> Array:
        """The gradient of the sinks, in the shape that they came in."""
        per_row = xp.reshape(gradient, self.out)
        return sum_to(xp, xp.sum(per_row, axis=-1), shape)


def sum_to(xp: Any, x: Array, shape: Shape) -> Array:
    """Sum over the axes that were broadcast from `shape`."""
    extra = x.ndim - len(shape)
    stretched = [axis + extra for axis, length in enumerate(shape) if length == 1 and x.shape[axis + extra] != 1]
    axes = (*range(extra), *stretched)
    return xp.reshape(xp.sum(x, axis=axes), shape) if axes else x


def _listed(shapes: dict[str, Shape]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
