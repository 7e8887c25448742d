"""From the options of attention that speak of positions to what they hide."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from attnbackends import Array

from ..integers import integers, sides
from .layout import Layout
from .visibility import Visibility


def visibility(
    layout: Layout,
    causal: bool = False,
    query_start: int | str | Sequence[int] | Array | None = None,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Array | Sequence[int] | None = None,
    query_offsets: Array | Sequence[int] | None = None,
    key_offsets: Array | Sequence[int] | None = None,
) -> Visibility:
    """What positions hide, from the options of `attention`; nothing by default."""
    T_q, T_k, N = layout.T_q, layout.T_k, layout.batch
    left, right = sides(window)
    if causal:
        right = 0
    lengths = None
    if key_lengths is not None:
        if query_offsets is not None:
            raise ValueError("`key_lengths` and `query_offsets` exclude each other: offsets say where sequences end")
        lengths = integers("key_lengths", key_lengths)
        if N is None:
            raise ValueError(f"`key_lengths` needs a batch axis before the others, got q {layout.q}")
        if lengths.shape != (N,):
            raise ValueError(f"`key_lengths` must have shape (N,) = ({N},), the first axis, got {lengths.shape}")
        if lengths.min(initial=0) < 0 or lengths.max(initial=0) > T_k:
            raise ValueError(f"`key_lengths` must lie in 0 .. T_k = {T_k}, got {lengths.tolist()}")
    offsets = None
    if query_offsets is not None:
        ends = query_offsets if key_offsets is None else key_offsets
        offsets = _offsets("query_offsets", query_offsets, T_q), _offsets("key_offsets", ends, T_k)
        if len(offsets[0]) != len(offsets[1]):
            counts = f"{len(offsets[0])} and {len(offsets[1])}"
            raise ValueError(f"`query_offsets` and `key_offsets` must be as many, got {counts}")
    elif key_offsets is not None:
        raise ValueError("`key_offsets` needs `query_offsets`: each packed sequence has queries and keys")
    given = _start(query_start, T_q, T_k, N, lengths, offsets)
    if left is None and right is None:
        start = np.zeros(1, np.int64)
    elif given is None:
        raise ValueError(
            "`query_start` must be given where queries and keys differ in number: 'start', 'end', or a position"
        )
    else:
        start = given
    if 0 in layout.lead:  # positions of no entry at all
        start, lengths = np.zeros(1, np.int64), None
    # A side that reaches past all keys from every position is no limit, however large a number says so.
    if left is not None and left >= int(start.max()) + T_q - 1:
        left = None
    if right is not None and right >= T_k - 1 - int(start.min()):
        right = None
    entries_each = prod(layout.lead[1:]) if N is not None else prod(layout.lead)
    return Visibility(T_q, T_k, layout.groups, entries_each, start, left, right, lengths, offsets)


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


def _offsets(name: str, values: Array | Sequence[int], total: int) -> np.ndarray:
    ends = integers(name, values)
    if ends.ndim != 1 or ends.size < 2 or ends[0] != 0 or ends[-1] != total or np.any(np.diff(ends) < 0):
        raise ValueError(f"`{name}` must rise from 0 to {total}, got {ends.tolist()}")
    return ends
