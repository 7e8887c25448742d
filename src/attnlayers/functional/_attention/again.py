"""Calls without options that come again on a device: served with neither a check nor a form.

All that `check`, `Form`, `Problem` and a backend find out about such a call follows from its shapes, dtypes and scale.
On the host that time is small beside the products; on a device it is half of what a call costs at the book's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from attnbackends import Array, Backend, OwnAttention

from .layout import Layout
from .problem import Problem
from .run import SavedAttention

KNOWN = 512
"""Calls that are remembered, at about 1 KB each; then all are forgotten."""


class Known(NamedTuple):
    """What calls of a kind share; it holds none of their arrays."""

    layout: Layout
    shared: tuple[Any, ...]  # the fields of `Problem` after its arrays
    serve: Callable[[Array, Array, Array | None], OwnAttention | None]  # as `OwnAttention.again` has it


_known: dict[Hashable, Known] = {}


def kind_of(backend: Backend, q: Array, k: Array, v: Array | None, scale: float | None, keep_bytes: int) -> Hashable:
    """The key of a call without options; None where its numbers are none of Python's own, which need a closer look."""
    if type(keep_bytes) is not int or type(scale) not in (float, int, type(None)):
        return None
    values = None if v is None else (v is k, v.shape, v.dtype)
    return backend, q.shape, q.dtype, k.shape, k.dtype, values, scale, keep_bytes


def remember(kind: Hashable, saved: SavedAttention) -> None:
    """Keep how the first call of a kind was served, where its library can do so again and its arrays came flat.

    Others of the kind whose arrays lie in another way, or on another device, go the long way.
    """
    if kind in _known:
        return
    problem, layout, result = saved.problem, saved.layout, saved.result
    flat = problem.q.shape == layout.q and problem.k.shape == layout.k and problem.values.shape == layout.v
    serve = result.again() if flat and isinstance(result, OwnAttention) else None
    if serve is not None:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[kind] = Known(layout, problem[4:], serve)


def attention_again(
    kind: Hashable, backend: Backend, q: Array, k: Array, v: Array | None
) -> tuple[Array, SavedAttention] | None:
    """What `attention` returns; None where no call of the kind was remembered, or these arrays lie otherwise."""
    known = _known.get(kind)
    result = None if known is None else known.serve(q, k, v)
    if known is None or result is None:
        return None
    problem = Problem._make((backend, q, k, v, *known.shared))
    return result.out, SavedAttention(problem, known.layout, result, {})
