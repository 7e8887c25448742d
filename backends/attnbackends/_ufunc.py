"""Libraries whose element-wise functions take NumPy's ``out=`` and ``where=``: NumPy and CuPy."""

from collections.abc import Callable
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

    def apply(self, function: Callable[..., Array], array: Array) -> Array:
        return function(array, out=array)

    def fill(self, array: Array, where: Array, value: float) -> None:
        self.xp.copyto(array, value, where=where)
