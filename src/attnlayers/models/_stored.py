"""Parameters of layers as arrays of files: under which name, in which shape, and how to fill one from the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import Array, backend_of

from ..layers.initializer import Initializer, Scale

BLOCK_BYTES = 8 * 1024**2
"""Bytes of a file's array that are read at once: memory beyond the weights, for calls of the reader."""


class Unset(Initializer):
    """Makes weights that hold anything, for those that are read from a file next: none is drawn, no page is touched.

    The weights of a map lie in memory column by column, as most files have them. A product with one row, which is what
    a new token asks for, reads them faster so (benchmarks/NOTES.md, "Language models").
    """

    def matrix(self, rows: int, columns: int, usual: Scale = "fan_avg", side_by_side: int = 1) -> Array:
        return self.backend.xp.matrix_transpose(self.full(0, columns, rows))

    def normal(self, *shape: int, usual: float = 1.0) -> Array:
        return self.full(0, *shape)

    def full(self, value: float, *shape: int) -> Array:
        return self.backend.empty(shape, like=self.array(np.zeros(())))


class WeightsError(ValueError):
    """A file of weights is damaged, or holds those of another layer."""


@dataclass(frozen=True)
class Stored:
    """An array of a file: parameters side by side along their last axis, then transposed where `transposed`."""

    name: str
    params: tuple[Array, ...]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file has it."""
        *lead, _ = self.params[0].shape or (1,)
        shape = (*lead, sum(p.shape[-1] if p.shape else 1 for p in self.params))
        return shape[::-1] if self.transposed else shape if self.params[0].shape else ()

    def read(self) -> np.ndarray:
        """What the file has under the name."""
        host = [np.asarray(backend_of(p).to_numpy(p)) for p in self.params]
        joined = np.concatenate(host, axis=-1) if len(host) > 1 else host[0]
        return np.array(joined.T if self.transposed else joined, order="C")

    def write(self, rows: np.ndarray, start: int = 0) -> None:
        """Overwrite what stands in these rows of the file's array, from the row `start` on."""
        along = self.transposed or len(self.shape) == 1  # the rows of the file are the last axis of parameters
        stop = start + (rows.shape[0] if rows.ndim else 1)
        edges = pairwise(accumulate((p.shape[-1] for p in self.params), initial=0)) if self.shape else [(0, 1)]
        for param, (first, last) in zip(self.params, edges, strict=True):
            if not self.shape:
                _put(param, ..., rows)
            elif along:
                a, b = max(start, first), min(stop, last)
                if a < b:
                    own = rows[a - start : b - start]
                    _put(param, (..., slice(a - first, b - first)), own.T if self.transposed else own)
            else:
                _put(param, (slice(start, stop), ...), rows[..., first:last])


def _put(param: Array, place: Any, values: np.ndarray) -> None:
    param[place] = backend_of(param).asarray(values, dtype=param.dtype, like=param)


class TensorFiles:
    """The arrays of one safetensors file, or of several.

    Parameters
    ----------
    *paths : path

    Attributes
    ----------
    metadata : dict of str to str
        Of the first file.
    shapes : dict of str to tuple of int
    dtypes : dict of str to str
        NumPy's names: ``"float32"``, ``"bfloat16"``.

    Raises
    ------
    WeightsError
        If a file is missing, cut short, or no safetensors file.
    """

    def __init__(self, *paths: str | Path) -> None:
        self._homes: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        for path in map(Path, paths):
            with _opened(path) as file:
                self.metadata = self.metadata or dict(file.metadata() or {})
                for name in file.keys():  # noqa: SIM118  a file is no mapping
                    array = file.get_slice(name)
                    self._homes[name], self.shapes[name] = path, tuple(array.get_shape())
                    self.dtypes[name] = _NAMES.get(array.get_dtype(), array.get_dtype())

    def rows(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks of an array's rows, each with the place of its first row.

        The file is opened anew for each: what was read of a file stays in memory for as long as that is open.
        """
        shape = self.shapes[name]
        count = shape[0] if shape else 1
        at_once = max(1, BLOCK_BYTES // max(1, prod(shape[1:]) * _bytes(self.dtypes[name])))
        for start in range(0, count, at_once):
            with _opened(self._homes[name]) as file:
                whole = not shape or at_once >= count
                block = file.get_tensor(name) if whole else file.get_slice(name)[start : min(start + at_once, count)]
            yield start, block


FLOATS = ("float64", "float32", "float16", "bfloat16")
_NAMES = dict(zip(("F64", "F32", "F16", "BF16"), FLOATS, strict=True))


def _bytes(dtype: str) -> int:
    return {"float64": 8, "float32": 4}.get(dtype, 2)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    safetensors = import_safetensors()
    if not path.is_file():
        raise WeightsError(f"{path} is not there, or no file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is cut short, damaged or no safetensors file ({error})") from error


def import_safetensors() -> Any:
    """The library safetensors, or an error that says how to get it."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("files of weights need safetensors: pip install 'attnlayers[train]'") from error
    return safetensors


def fill(stored: Iterable[Stored], files: TensorFiles) -> None:
    """Overwrite parameters from files, block by block; `check` first."""
    for entry in stored:
        for start, rows in files.rows(entry.name):
            entry.write(rows, start)


def check(stored: Sequence[Stored], shapes: Mapping[str, tuple[int, ...]], *, where: str = "") -> None:
    """Hold names and shapes against those that a layer has.

    Raises
    ------
    WeightsError
        Naming all that is unknown, with the nearest known name, all that is missing, and all that has another shape.
    """
    known = {entry.name: entry.shape for entry in stored}
    unknown, missing = sorted(shapes.keys() - known.keys()), sorted(known.keys() - shapes.keys())
    parts = []
    if unknown:
        nearest = [get_close_matches(name, list(known), n=1, cutoff=0.0) for name in unknown]
        listed = [
            name + (f" (nearest: {near[0]})" if near else "") for name, near in zip(unknown, nearest, strict=True)
        ]
        parts.append(f"unknown are {', '.join(listed)}")
    if missing:
        parts.append(f"missing are {', '.join(missing)}")
    prefix = f"{where}: " if where else ""
    if parts:
        raise WeightsError(f"{prefix}these are the weights of another layer: {'; '.join(parts)}")
    others = [f"`{name}` must have shape {shape} to fit the layer, got {shapes[name]}" for name, shape in known.items()
              if tuple(shapes[name]) != shape]  # fmt: skip
    if others:
        raise WeightsError(f"{prefix}{'; '.join(others)}: make the layer with the sizes of the weights")
