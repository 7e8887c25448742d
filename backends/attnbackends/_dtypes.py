"""Floating point dtypes: those of the standard, and the bfloat16 that ml_dtypes brings to NumPy and CuPy.

NumPy's own questions about dtypes refuse that one.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ._base import Backend, DType


@cache  # a layer for one step asks a dozen times, and NumPy takes longer to answer than the step
def float_bits(xp: Any, dtype: DType) -> int:
    """Bits of a number of a floating point dtype; 0 for any other dtype.

    Parameters
    ----------
    xp : module
        The array namespace that the dtype belongs to.
    dtype : dtype
    """
    if getattr(dtype, "name", None) == "bfloat16":
        return 16
    return int(xp.finfo(dtype).bits) if xp.isdtype(dtype, "real floating") else 0


def float_dtype(backend: Backend, name: str) -> DType:
    """The floating point dtype that a library has under a name.

    Raises
    ------
    ValueError
        If it has none.
    ImportError
        For bfloat16 of NumPy or CuPy, where ml_dtypes is not installed.
    """
    xp = backend.xp
    with suppress(AttributeError, TypeError):
        dtype = _of_numpy(name) if xp.float32 is np.float32 else getattr(xp, name)
        if float_bits(xp, dtype):
            return dtype
    raise ValueError(f"`dtype` must be the name of a floating point dtype of {backend.name}, got {name!r}")


def _of_numpy(name: str) -> DType:
    if name == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  makes the name known to NumPy
        except ImportError as error:
            raise ImportError("bfloat16 in NumPy and CuPy needs ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(name)
