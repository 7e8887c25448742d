"""Matrix products through cuBLAS on arrays as they lie: nothing is cast, and nothing is copied to be transposed.

CuPy's own `matmul` copies operands of stacks that are not in the order of C, and in some releases casts half precision
to float32. The functions here are those that it calls itself; they are not part of its public interface, so `Products`
looks for each of them once, and where one is missing there are no `Products`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

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


class Stack(NamedTuple):
    """How matrices of one stack lie, as cuBLAS is told it.

    Attributes
    ----------
    turned : bool
        As `by_columns` finds it.
    lead : int
    step : int
        From one matrix to the next, in elements.
    """

    turned: bool
    lead: int
    step: int

    @classmethod
    def dense(cls, rows: int, columns: int) -> Stack:
        """Matrices in the order of C."""
        return cls(False, columns, rows * columns)

    @classmethod
    def of(cls, x: Array) -> Stack | None:
        """Those of an array (B, M, N); None where cuBLAS cannot read them as they lie."""
        found, step = _rows(x), x.strides[0] // x.itemsize
        return None if found is None or step < 0 else cls(*found, step)

    @property
    def mT(self) -> Stack:
        return Stack(not self.turned, self.lead, self.step)


Product = Callable[[int, int, int], None]
"""A product that is ready: called with the addresses of ``a``, ``b`` and ``out``."""


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

    def ready(
        self,
        dtypes: tuple[str, str],
        count: int,
        shape: tuple[int, int, int],
        a: Stack,
        b: Stack,
        out: Stack,
        add: bool = False,
    ) -> Product:
        """A product of stacks, to be called whenever arrays of these layouts are multiplied.

        Parameters
        ----------
        dtypes : (str, str)
            Names of the dtypes of the operands and of the result, which may be float32 for half precision.
        count : int
            Matrices in a stack.
        shape : (int, int, int)
            M, K and N: (M, K) x (K, N) -> (M, N).
        a, b, out : Stack
            `out` is not turned.
        add : bool
            Whether to add the product to what `out` holds.
        """
        (kind, compute), (kind_out, _) = (self._kinds[name] for name in dtypes)
        (M, K, N), half = shape, dtypes[0] not in ("float32", "float64")
        number = np.float64 if dtypes[0] == "float64" else np.float32
        factors = np.array((1, int(add)), number)
        alpha = factors.ctypes.data
        beta = alpha + factors.itemsize
        handle_of, gemm, get_mode, set_mode = self._handle, self._gemm, self._get_mode, self._set_mode
        algorithm = self._algorithm

        def run(at_a: int, at_b: int, at_out: int, factors: Any = factors) -> None:
            handle = handle_of()
            if half:
                mode = get_mode(handle)
                set_mode(handle, mode | DISALLOW_REDUCED_PRECISION)
            try:
                # Columns for rows: out.T = b.T @ a.T, which is what lies in memory read the other way round.
                gemm(
                    handle, int(b.turned), int(a.turned), N, M, K,
                    alpha, at_b, kind, b.lead, b.step, at_a, kind, a.lead, a.step,
                    beta, at_out, kind_out, out.lead, out.step,
                    count, compute, algorithm,
                )  # fmt: skip
            finally:
                if half:
                    set_mode(handle, mode)

        return run

    def _multiply(self, a: Array, b: Array, out: Array, leading: tuple[int, ...]) -> None:
        count, steps, begins = stacks(leading, [_leading_strides(x, leading) for x in (a, b, out)])
        of_a, of_b, of_out = (
            Stack(*_rows(x), step=step)  # type: ignore[misc]
            for x, step in zip((a, b, out), steps, strict=True)
        )
        shape = a.shape[-2], a.shape[-1], b.shape[-1]
        run = self.ready((a.dtype.name, out.dtype.name), count, shape, of_a, of_b, of_out)
        for begin in begins:
            run(*(x.data.ptr + offset * x.itemsize for x, offset in zip((a, b, out), begin, strict=True)))


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
