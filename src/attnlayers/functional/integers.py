"""Whole numbers that a caller gives: how many, how long, which position, which seed."""

from operator import index
from typing import Any

import numpy as np

from attnbackends import backend_of

FARTHEST = 2**61
"""The farthest position: sums of two positions and a length must fit 64 bits."""


def integer(name: str, value: Any, least: int | None = None) -> int:
    """An integer of Python or NumPy, or an integer array without axes, as Python's int, which cannot overflow.

    Parameters
    ----------
    name : str
        What the caller knows it as, for messages.
    value : int
        Neither a boolean nor a floating point number, whatever its value.
    least : int, optional
        The smallest that is allowed.

    Raises
    ------
    TypeError
        For anything but an integer.
    ValueError
        For one that is too small.
    """
    if type(value) is not int:
        try:
            has_axes, kind = bool(getattr(value, "ndim", False)), str(getattr(value, "dtype", type(value)))
            if has_axes or "bool" in kind:  # PyTorch takes both for indices
                raise TypeError
            value = int(value) if "int" in kind and hasattr(value, "dtype") else index(value)  # CuPy has no index
        except TypeError:
            raise TypeError(f"`{name}` must be an integer, got {_shown(value)}") from None
    if least is not None and value < least:
        raise ValueError(f"`{name}` must be {least} or more, got {value}")
    return int(value)


def sizes(**values: Any) -> list[int]:
    """Lengths of axes and numbers of things, each 1 or more, under their names."""
    return [integer(name, value, least=1) for name, value in values.items()]


def sides(window: Any) -> tuple[int | None, int | None]:
    """How many keys before and after its position a query sees; None is unbounded."""
    if window is None:
        return None, None
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise TypeError(f"`window` must be a pair of numbers of keys, each of which may be None, got {window!r}")
    left, right = (None if side is None else integer("window", side, least=0) for side in window)
    return left, right


def integers(name: str, values: Any) -> np.ndarray:
    """A few integers on the host, as int64: from one, a sequence of them, or an array.

    Raises
    ------
    TypeError
        For anything but integers.
    ValueError
        For numbers beyond `FARTHEST`.
    """
    if hasattr(values, "dtype") and hasattr(values, "shape") and not isinstance(values, np.generic):
        given = np.asarray(backend_of(**{name: values}).to_numpy(values))
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"`{name}` must be integers, got {given.dtype}")
    elif isinstance(values, (list, tuple, range)):
        given = _array(values if set(map(type, values)) <= {int} else [integer(name, value) for value in values])
    else:
        given = _array(integer(name, values))
    for value in (given.min(), given.max()) if given.size else ():
        if not -FARTHEST <= int(value) <= FARTHEST:
            raise ValueError(f"`{name}` must lie within 2**61 of 0, got {value}")
    return given.astype(np.int64)


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.int64)
    except OverflowError:
        return np.asarray(values, dtype=object)


def _shown(value: Any) -> str:
    """`value` with its type, which may be all that is wrong with it."""
    shape = getattr(value, "shape", None)
    what = f"{type(value).__name__} " + (f"of shape {tuple(shape)}, {value.dtype}" if shape else repr(value))
    return what if len(what) < 100 else what[:97] + "..."
