"""Data sets of scripts, where the weights of their models are."""

from typing import Any

import numpy

from attnbackends import Array, Backend, backend_of, get_backend

from ._arrays import note, note_range, range_of, to_host


class Rows:
    """Data where the weights of a model are."""

    def __init__(self, model: Any, data: Any) -> None:
        self.backend = home(model)
        host = numpy.asarray(data) if not hasattr(data, "dtype") else data
        if self.backend.on_host:
            host = to_host(host)
        self.rows = self.backend.asarray(host)
        if not self.backend.on_host and isinstance(host, numpy.ndarray):
            note(self.rows, host)

    def __getitem__(self, rows: slice) -> Array:
        return self.rows[rows]

    def reorder(self, order: numpy.ndarray) -> None:
        self.rows = pick(self.rows, order)


def pick(array: Array, places: numpy.ndarray) -> Array:
    """The entries at `places`, with what is known of their range."""
    if isinstance(array, numpy.ndarray):
        return array[places]
    picked = array[backend_of(array).asarray(places)]
    known = range_of(array)
    if known is not None:
        note_range(picked, *known)
    return picked


def home(model: Any) -> Backend:
    """Where the weights of a model are: NumPy's where it has none."""
    params = getattr(model, "params", None)
    return backend_of(params[0]) if params else get_backend("numpy")
