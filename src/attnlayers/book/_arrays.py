"""Where an array belongs: layers compute where their weights are, whatever library a script's own arrays are of."""

from collections import OrderedDict
from typing import Any

import numpy

from attnbackends import Array, Backend, backend_of, get_backend

_KNOWN = 256
_ranges: "OrderedDict[int, tuple[Array, int, int]]" = OrderedDict()


def floats(like: Array, x: Any) -> Any:
    """`x` in the library, on the device and in the dtype of the floating point array `like`."""
    if type(x) is type(like) and x.dtype == like.dtype:
        return x
    backend = backend_of(like)
    x = backend.asarray(_on_host_unless(backend, x))
    return x if x.dtype == like.dtype else backend.xp.astype(x, like.dtype)


def as_floats(x: Any) -> Any:
    """`x` as a floating point array of its own library; numbers and lists become NumPy's."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape") or isinstance(x, numpy.generic):
        x = numpy.asarray(x)
    return x if x.dtype.kind == "f" else x.astype("float64")


def ids(like: Any, x: Any, size: int | None = None) -> Any:
    """Integers `x` in the library and on the device of `like`.

    Raises
    ------
    IndexError
        For an id outside 0 .. size - 1, wherever that can be known without waiting for a device.
    """
    backend = backend_of(like)
    if not isinstance(x, type(like)):
        host = numpy.asarray(_on_host_unless(backend, x))
        if host.dtype.kind not in "iu":
            host = host.astype(numpy.int64)
        x = backend.asarray(host)
        if not backend.on_host:
            note(x, host)
    elif x.dtype.kind not in "iu":
        x = x.astype("int64")
    if size is not None and not backend.on_host:
        _check(x, size)
    return x


def note(array: Any, host: numpy.ndarray) -> None:
    """Remember the smallest and largest of the ids in `array`, of which `host` has the values."""
    if host.dtype.kind in "iu" and host.size:
        note_range(array, int(host.min()), int(host.max()))


def note_range(array: Any, lowest: int, highest: int) -> None:
    """Remember that the ids in `array` lie in this range."""
    _ranges[id(array)] = (array, lowest, highest)
    while len(_ranges) > _KNOWN:
        _ranges.popitem(last=False)


def range_of(array: Any) -> tuple[int, int] | None:
    """The range of the ids in `array`, or in what it is a part of, where it was noted."""
    root = array if getattr(array, "base", None) is None else array.base
    noted = _ranges.get(id(array)) or _ranges.get(id(root))
    return None if noted is None else noted[1:]


def _check(array: Array, size: int) -> None:
    found = range_of(array)
    if found is not None and (found[0] < 0 or found[1] >= size):
        outside = found[0] if found[0] < 0 else found[1]
        raise IndexError(
            f"`ids` must lie in 0 .. {size - 1}, the vocabulary, got {outside}: "
            "give the weights a place for each word, or leave the word out"
        )


def to_host(x: Any) -> Any:
    """A NumPy array of the same values; what is no array stays as it is."""
    if isinstance(x, numpy.ndarray) or not hasattr(x, "__cuda_array_interface__"):
        return x
    return backend_of(x).to_numpy(x)


def to_cuda(x: Any) -> Array:
    """A CuPy array of the same values."""
    backend = get_backend("cupy")
    if isinstance(x, backend.xp.ndarray):
        return x
    host = numpy.asarray(x)
    moved = backend.asarray(host)
    note(moved, host)
    return moved


def as_loss(loss: Array) -> Any:
    """A number where reading is free, else the array (), so that nothing waits for the device."""
    backend = backend_of(loss=loss)
    return numpy.float64(backend.to_numpy(loss)) if backend.on_host else loss


def _on_host_unless(backend: Backend, x: Any) -> Any:
    if isinstance(x, numpy.ndarray) and type(x) is not numpy.ndarray:
        backend_of(x)  # refuses what would lose its meaning here: the mask of a masked array
    return x if not backend.on_host else to_host(x)
