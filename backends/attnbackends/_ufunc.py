"""Libraries whose element-wise functions take NumPy's ``out=`` and ``where=``: NumPy and CuPy."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ._base import Array, Backend, DType


@cache  # a layer for one step asks a dozen times, and NumPy takes longer to answer than the step
def _is_dtype(dtype: DType, kind: str | tuple[str, ...]) -> bool:
    if dtype.name == "bfloat16":
        return "real floating" in ((kind,) if isinstance(kind, str) else kind)
    return bool(np.isdtype(dtype, kind))


@cache
def _bits(dtype: DType) -> int:
    return 16 if np.dtype(dtype).name == "bfloat16" else int(np.finfo(dtype).bits)


class UfuncBackend(Backend):
    """The in-place operations, with no temporary larger than a row sum, and NumPy's dtypes."""

    def is_dtype(self, dtype: DType, kind: str | tuple[str, ...]) -> bool:
        return _is_dtype(dtype, kind)

    def _dtype_of(self, name: str) -> DType:
        if name == "bfloat16":
            try:
                import ml_dtypes  # noqa: F401  makes the name known to NumPy
            except ImportError as error:
                raise ImportError("bfloat16 in NumPy and CuPy needs ml_dtypes: pip install ml_dtypes") from error
        return np.dtype(name)

    def bits(self, dtype: DType) -> int:
        return _bits(dtype)

    def empty(self, shape: tuple[int, ...], like: Array, dtype: DType = None) -> Array:
        return self.xp.empty(shape, dtype=dtype or like.dtype)

    def arange(self, count: int, like: Array) -> Array:
        return self.xp.arange(count, dtype=self.xp.int64)

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        whole = arrays[0].base
        if not isinstance(whole, self.xp.ndarray) or whole.ndim != 2 or not whole.flags.c_contiguous:
            return None
        begin = end = self._address(whole)
        for array in arrays:
            if array.base is not whole or not array.flags.c_contiguous or self._address(array) != end:
                return None
            end += array.nbytes
        same = all(array.dtype == whole.dtype and array.shape[-1] == whole.shape[1] for array in arrays)
        return whole if same and end == begin + whole.nbytes else None

    def _address(self, array: Array) -> int:
        """Where an array begins in memory."""
        return int(array.__array_interface__["data"][0])

    def apply(self, function: Callable[..., Array], array: Array) -> Array:
        return function(array, out=array)

    def fill(self, array: Array, where: Array, value: float) -> None:
        self.xp.copyto(array, value, where=where)
