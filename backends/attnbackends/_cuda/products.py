"""Matrix products through cuBLAS on arrays as they lie: nothing is cast, and nothing is copied to be transposed.

CuPy's own `matmul` copies operands of stacks that are not in the order of C, and in some releases casts half precision
to float32. The functions here are those that it calls itself; they are not part of its public interface, so `Products`
looks for each of them once, and where one is missing there are no `Products`.
"""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import numpy as np

Array = Any
Strides = tuple[int, ...]

DISALLOW_REDUCED_PRECISION = 16
"""A math mode of cuBLAS: partial sums are never added up in half precision."""


def by_columns(shape: tuple[int, int], strides: tuple[int, int]) -> tuple[bool, int] | None:
    """A matrix of rows as cuBLAS, which thinks in columns, has to read it to find its transpose.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns, 1 or more.
    strides : (int, int)
        In elements.

    Returns
    -------
    (bool, int) or None
        Whether to transpose what lies there, and the leading dimension. None where neither axis is dense.
    """
    (rows, columns), (down, along) = shape, strides
    if (along == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(down, columns) if rows > 1 else columns
    if (down == 1 or rows == 1) and (along >= rows or columns == 1):
        return True, max(along, rows) if columns > 1 else rows
    return None


def stacks(shape: tuple[int, ...], strides: list[Strides]) -> tuple[int, Strides, list[Strides]]:
    """Leading axes as one axis with one stride for each array, and where to begin for what does not join it.

    Parameters
    ----------
    shape : tuple of int
        The leading axes of a product, 1 or more each.
    strides : list of tuples of int
        Of each array along them, in elements; 0 where it is broadcast.

    Returns
    -------
    count : int
    steps : tuple of int
        From one matrix to the next, for each array.
    begins : list of tuples of int
        For each call that it takes, how far from its first element each array begins.
    """
    joined: list[tuple[int, Strides]] = []
    for axis, size in enumerate(shape):
        steps = tuple(each[axis] for each in strides)
        if size == 1:
            continue
        if joined and all(outer == inner * size for outer, inner in zip(joined[-1][1], steps, strict=True)):
            joined[-1] = (joined[-1][0] * size, steps)
        else:
            joined.append((size, steps))
    if not joined:
        return 1, (0,) * len(strides), [(0,) * len(strides)]
    longest = max(range(len(joined)), key=lambda i: joined[i][0])
    count, steps = joined.pop(longest)
    begins = [
        tuple(sum(i * each[array] for i, (_, each) in zip(place, joined, strict=True)) for array in range(len(strides)))
        for place in product(*(range(size) for size, _ in joined))
    ]
    return count, steps, begins


class Products:
    """Products of matrices and of stacks of them.

    Parameters
    ----------
    cupy : module

    Raises
    ------
    ImportError, AttributeError
        Where this CuPy has not what is needed.
    """

    def __init__(self, cupy: Any) -> None:
        cublas, runtime = cupy.cuda.cublas, cupy.cuda.runtime
        self._cupy = cupy
        self._handle = cupy.cuda.get_cublas_handle
        self._gemm, self._algorithm = cublas.gemmStridedBatchedEx, cublas.CUBLAS_GEMM_DEFAULT
        self._get_mode, self._set_mode = cublas.getMathMode, cublas.setMathMode
        single = cublas.CUBLAS_COMPUTE_32F
        tf32 = os.environ.get("CUPY_TF32", "0") not in ("", "0")  # the same switch as for CuPy's own products
        self._kinds = {
            "float16": (runtime.CUDA_R_16F, single),
            "bfloat16": (runtime.CUDA_R_16BF, single),
            "float32": (runtime.CUDA_R_32F, cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else single),
            "float64": (runtime.CUDA_R_64F, cublas.CUBLAS_COMPUTE_64F),
        }

    def takes(self, dtype: Any) -> bool:
        """Whether the device multiplies numbers of this dtype."""
        if dtype.name == "bfloat16":
            return int(self._cupy.cuda.Device().compute_capability) >= 80
        return dtype.name in self._kinds

    def __call__(self, a: Array, b: Array, out: Array | None = None, dtype: Any = None) -> Array | None:
        """``a @ b``, summed in float32 or better.

        Parameters
        ----------
        a : array (..., M, K)
        b : array (..., K, N)
            Of the dtype of `a`. An operand with neither of its last two axes dense is copied.
        out : array (..., M, N), optional
        dtype : dtype, optional
            Of the result where there is no `out`: that of the operands or float32, the default for half precision.

        Returns
        -------
        array or None
            None, with nothing written: not a product for this way.
        """
        if a.dtype != b.dtype or a.ndim < 2 or b.ndim < 2 or not self.takes(a.dtype):
            return None
        if a.shape[-1] != b.shape[-2]:
            return None
        half = a.dtype.itemsize == 2
        if not half and _as_cupy_does(a, b, out):
            return None
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        shape = (*leading, a.shape[-2], b.shape[-1])
        wanted = out.dtype if out is not None else np.dtype(dtype or ("float32" if half else a.dtype))
        if wanted != a.dtype and not (half and wanted == np.float32):
            return None
        if out is None:
            out = self._cupy.empty(shape, dtype=wanted)
        if out.shape != shape:
            return None
        if 0 in (*a.shape, *b.shape):
            out.fill(0)
            return out
        if (_rows(out) or (True,))[0]:
            return None
        a, b = (x if _rows(x) else self._cupy.ascontiguousarray(x) for x in (a, b))
        self._multiply(a, b, out, leading)
        return out

    def _multiply(self, a: Array, b: Array, out: Array, leading: tuple[int, ...]) -> None:
        (kind, compute), (kind_out, _) = self._kinds[a.dtype.name], self._kinds[out.dtype.name]
        (M, K), N = a.shape[-2:], b.shape[-1]
        count, steps, begins = stacks(leading, [_leading_strides(x, leading) for x in (a, b, out)])
        (turn_a, lead_a), (turn_b, lead_b), (_, lead_out) = map(_rows, (a, b, out))  # type: ignore[misc]
        number = np.float64 if a.dtype.name == "float64" else np.float32
        alpha, beta = np.array(1, number), np.array(0, number)
        handle = self._handle()
        mode = self._get_mode(handle)
        self._set_mode(handle, mode | DISALLOW_REDUCED_PRECISION)
        try:
            for begin in begins:
                at = [x.data.ptr + offset * x.dtype.itemsize for x, offset in zip((a, b, out), begin, strict=True)]
                # Columns for rows: out.T = b.T @ a.T, which is what lies in memory read the other way round.
                self._gemm(
                    handle, int(turn_b), int(turn_a), N, M, K,
                    alpha.ctypes.data, at[1], kind, lead_b, steps[1], at[0], kind, lead_a, steps[0],
                    beta.ctypes.data, at[2], kind_out, lead_out, steps[2],
                    count, compute, self._algorithm,
                )  # fmt: skip
        finally:
            self._set_mode(handle, mode)


def _as_cupy_does(a: Array, b: Array, out: Array | None) -> bool:
    """Whether CuPy multiplies these without a copy: then it is left to it.

    It copies what has gaps between its rows, and in stacks what is transposed.
    """
    if out is not None and not out.flags.c_contiguous:
        return False
    if a.ndim == b.ndim == 2:
        return all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b))
    return bool(a.shape[:-2] == b.shape[:-2] and a.flags.c_contiguous and b.flags.c_contiguous)


def _rows(x: Array) -> tuple[bool, int] | None:
    """`by_columns` of the last two axes."""
    if any(stride % x.dtype.itemsize for stride in x.strides):
        return None
    down, along = (stride // x.dtype.itemsize for stride in x.strides[-2:])
    return by_columns(x.shape[-2:], (down, along))


def _leading_strides(x: Array, leading: tuple[int, ...]) -> Strides:
    """Strides along the leading axes of the product, in elements."""
    own = [
        0 if size == 1 else stride // x.dtype.itemsize
        for size, stride in zip(x.shape[:-2], x.strides[:-2], strict=True)
    ]
    return (0,) * (len(leading) - len(own)) + tuple(own)
