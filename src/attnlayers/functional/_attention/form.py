"""What shapes, dtype and options say of a call of attention, before any number of it is looked at."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from attnbackends import Array, Backend, DType, float_bits

from ..dtypes import operand_dtype, wide
from ..integers import sides
from .layout import Layout, Shape
from .positions import visibility
from .visibility import Visibility

FORMS = 512
"""Forms that are remembered, at about 1 KB each: on a device the host would take longer to find one than to launch."""

MOST_NUMBERS = 256
"""Numbers of an array or a list that are looked at to remember a form by them."""

OTHERS = object()


class Form(NamedTuple):
    """What calls of the same shapes, dtype and options have in common.

    Attributes
    ----------
    layout : Layout
    is_flat : bool
        Whether the arguments are in flat form as they come.
    visibility : Visibility
        What positions hide.
    dtype : dtype
        To compute in: float32 for half precision.
    itemsize : int
        Bytes of a number in it.
    operand_dtype : dtype
        To multiply in: half precision as it is on a device, widened once on the host.
    is_half : bool
        Whether that is half precision.
    may_hide : bool
        Whether positions may hide all of a query or of a key (`Visibility.leaves_out`).
    """

    layout: Layout
    is_flat: bool
    visibility: Visibility
    dtype: Any
    itemsize: int
    operand_dtype: Any
    is_half: bool
    may_hide: bool

    @classmethod
    def of(
        cls,
        backend: Backend,
        q: Array,
        k: Array,
        v: Array | None,
        grouped: bool = False,
        causal: bool = False,
        query_start: int | str | Sequence[int] | Array | None = None,
        window: tuple[int | None, int | None] | None = None,
        key_lengths: Array | Sequence[int] | None = None,
        query_offsets: Array | Sequence[int] | None = None,
        key_offsets: Array | Sequence[int] | None = None,
    ) -> Form:
        """The form of a call; one that is told by few numbers of the host alone is remembered."""
        shapes = tuple(q.shape), tuple(k.shape), None if v is None else tuple(v.shape)
        known = backend, q.dtype, shapes, bool(grouped), bool(causal), sides(window)
        if query_start is key_lengths is query_offsets is key_offsets is None:
            return _remembered(*known, None, None, None, None)
        positions = query_start, key_lengths, query_offsets, key_offsets
        numbers = [_numbers(some) for some in positions]
        return _form(*known, *positions) if OTHERS in numbers else _remembered(*known, *numbers)


def _numbers(some: Any) -> Hashable:
    """Positions, lengths or offsets as what can be remembered; `OTHERS` for what needs a closer look."""
    kind = type(some)
    if some is None or kind in (int, str):
        return some
    if kind is np.ndarray and some.ndim == 1 and some.size <= MOST_NUMBERS and some.dtype.kind in "iu":
        return tuple(some.tolist())
    if kind in (list, tuple) and len(some) <= MOST_NUMBERS and set(map(type, some)) <= {int}:  # True equals 1
        return tuple(some)
    return OTHERS


def _form(
    backend: Backend,
    dtype: DType,
    shapes: tuple[Shape, Shape, Shape | None],
    grouped: bool,
    causal: bool,
    window: tuple[int | None, int | None],
    *positions: Any,
) -> Form:
    layout, computed, multiplied = Layout.of(*shapes, grouped), wide(backend, dtype), operand_dtype(backend, dtype)
    query_start, *ends = positions
    visible = visibility(layout, causal, query_start, window, *ends)
    is_half, itemsize = bool(multiplied != computed), float_bits(backend.xp, computed) // 8
    return Form(layout, layout.is_flat, visible, computed, itemsize, multiplied, is_half, visible.leaves_out)


_remembered = lru_cache(maxsize=FORMS)(_form)
