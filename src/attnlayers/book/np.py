"""The names `np` and `GPU` of the book: NumPy, or CuPy with what the book's code expects of it."""

import sys
from typing import Any

import numpy

import attnbackends
from attnbackends import Array, Backend, BackendError, get_backend, keep_freed_memory

from . import config

__all__ = ["GPU", "np"]


def _choose() -> Backend:
    # Where only this module stands in the book's place, its scripts set the switch of `common.config`.
    if config.GPU or getattr(sys.modules.get("common.config"), "GPU", False):
        return get_backend("cupy")
    if attnbackends.backend.name not in ("numpy", "cupy"):
        raise BackendError(
            f"the book's code runs on NumPy or CuPy, not on {attnbackends.backend.name}: unset ATTN_BACKEND"
        )
    return get_backend("numpy")


def on_device(array: Any) -> Array:
    """A NumPy array as an array of the device; anything else as it is."""
    return backend.asarray(array) if isinstance(array, numpy.ndarray) else array


def on_host(array: Any) -> Any:
    """An array of the device as a NumPy array; anything else as it is."""
    return backend.to_numpy(array) if GPU and isinstance(array, backend.xp.ndarray) else array


class _Moving:
    """A function of CuPy that takes NumPy arrays too."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        options = {name: on_device(option) for name, option in options.items()}
        return self._function(*map(on_device, args), **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._function, name)
        return _Moving(found) if callable(found) else found


class _HostRandom:
    """``numpy.random``, with results on the device: a seed means the same numbers with and without one."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(numpy.random, name)
        if not callable(function) or isinstance(function, type):
            return function

        def draw(*args: Any, **options: Any) -> Any:
            options = {key: on_host(option) for key, option in options.items()}
            return on_device(function(*map(on_host, args), **options))

        return draw


class _CupyForTheBook:
    """CuPy under the names that the book's code uses, those that CuPy has dropped included."""

    random = _HostRandom()

    def __getattr__(self, name: str) -> Any:
        found = backend.xp.add.at if name == "scatter_add" else getattr(backend.xp, name)
        plain = isinstance(found, type) or not callable(found) or name == "asnumpy"
        value = found if plain else _Moving(found)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return dir(backend.xp)


keep_freed_memory()  # what runs with the book's code is a program, and one that trains
backend = _choose()
GPU = not backend.on_host
np: Any = _CupyForTheBook() if GPU else numpy
