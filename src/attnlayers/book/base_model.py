"""Models that write their weights and read them, in the book's files."""

import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy

from attnbackends import Array, backend_of

from ..training.files import RunError, write_whole
from ._arrays import to_host
from .np import GPU, np
from .util import to_cpu, to_gpu

__all__ = ["GPU", "BaseModel", "np", "os", "pickle", "sys", "to_cpu", "to_gpu"]


class BaseModel:
    """What the book's models share; `params` and `grads` are theirs to fill."""

    def __init__(self) -> None:
        self.params: Any = None
        self.grads: Any = None

    def forward(self, *args: Any) -> Any:
        """What each model has."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *args: Any) -> Any:
        """What each model has."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def save_params(self, file_name: str | None = None) -> None:
        """Write all parameters as float16, by default to ``<class name>.pkl``.

        Raises
        ------
        OSError
            Where the file cannot be written; what stood there is untouched then.
        """
        arrays = [to_host(param).astype(numpy.float16) for param in self.params]
        try:
            write_whole(Path(self._file(file_name)), lambda aside: aside.write_bytes(pickle.dumps(arrays)))
        except RunError as error:
            raise OSError(str(error)) from error

    def load_params(self, file_name: str | None = None) -> None:
        """Overwrite all parameters with those of a file that `save_params` wrote.

        Raises
        ------
        OSError
            Where there is no such file.
        ValueError
            Where it holds anything but a list of arrays, or those of another model; nothing is overwritten then.
        """
        name = self._file(file_name)
        if not os.path.exists(name):  # noqa: PTH110  a name as the book's scripts give it
            raise OSError(f"No file: {name}")
        arrays = read_arrays(name)
        wanted = [tuple(param.shape) for param in self.params]
        found = [array.shape for array in arrays]
        if wanted != found:
            raise ValueError(f"{name} holds the weights of another model: expected shapes {wanted}, got {found}")
        for param, array in zip(self.params, arrays, strict=True):
            param[...] = _as(param, array)

    def _file(self, file_name: str | None) -> str:
        return f"{type(self).__name__}.pkl" if file_name is None else file_name.replace("/", os.sep)


def _as(param: Array, array: numpy.ndarray) -> Array:
    return backend_of(param).asarray(array.astype(numpy.float32), dtype=param.dtype)


_ADMITTED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}


def _bytes(text: str, _: str) -> bytes:
    """How the protocols before 3 write bytes."""
    return text.encode("latin1")


class _Arrays(pickle.Unpickler):
    """What builds NumPy arrays is found; anything else is refused, by name, before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_arrays(file_name: str) -> list[numpy.ndarray]:
    """The arrays of a file that `BaseModel.save_params` or the book's wrote; nothing of it is ever run.

    Raises
    ------
    ValueError
        For a file that holds anything but a list of arrays of numbers.
    """
    expected = "expected a pickled list of NumPy arrays, as save_params writes it"
    try:
        found = _Arrays(io.BytesIO(Path(file_name).read_bytes())).load()
    except Exception as error:  # a damaged pickle may fail in any way
        raise ValueError(f"{file_name} is refused, {' '.join(str(error).split())}: {expected}") from None
    if not isinstance(found, list):
        raise ValueError(f"{file_name} is refused, it holds a {type(found).__name__}: {expected}")
    for place, array in enumerate(found):
        if type(array) is not numpy.ndarray or array.dtype.kind not in "fiub":
            kind = f"an array of {array.dtype}" if isinstance(array, numpy.ndarray) else f"a {type(array).__name__}"
            raise ValueError(f"{file_name} is refused, entry {place} is {kind}: {expected}")
    return found
