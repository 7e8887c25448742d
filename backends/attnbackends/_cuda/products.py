"""Matrix products through cuBLAS on arrays as they lie: nothing is cast, and nothing is copied to be transposed.

CuPy's own `matmul` copies operands of stacks that are not in the order of C, and in some releases casts half precision
to float32. The functions here are those that it calls itself; they are not part of its public interface, so `Products`
looks for each of them once, and where one is missing there are no `Products`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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


class Plan(NamedTuple):
    """How arrays of some shapes, strides and dtypes are multiplied.

    Attributes
    ----------
    shape, dtype
        Of the product.
    run : Product or None
        None where the product is all zeros, as there is nothing to add up.
    copied : tuple of int
        Which of the two operands, 0 and 1, have to be copied first.
    begins : list of tuples of int
        For each call that it takes, how many bytes from the first element of each array it begins.
    """

    shape: tuple[int, ...]
    dtype: Any
    run: Product | None
    copied: tuple[int, ...] = ()
    begins: Sequence[Sequence[int]] = ()


MOST_PLANS = 1024
"""Plans that are kept; what grows step by step, as a cache of keys does, would fill the memory otherwise. Making one
takes ten times as long as finding it."""

UNKNOWN: Any = object()


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
        self._single, self._plans = cublas.gemmEx, dict[Any, Plan | None]()
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
        like_out = None if out is None else (out.dtype, out.shape, out.strides)
        device = a.dtype.itemsize == 2 and self._cupy.cuda.runtime.getDevice()  # not all multiply half precision
        key = a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides, like_out, dtype, device
        plan = self._plans.get(key, UNKNOWN)
        if plan is UNKNOWN:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(a, b, out, dtype)
        if plan is None:
            return None
        if out is None:
            out = self._cupy.empty(plan.shape, dtype=plan.dtype)
        if plan.run is None:
            out.fill(0)
            return out
        if plan.copied:
            a, b = (self._cupy.ascontiguousarray(x) if i in plan.copied else x for i, x in enumerate((a, b)))
        at_a, at_b, at_out = a.data.ptr, b.data.ptr, out.data.ptr
        for of_a, of_b, of_out in plan.begins:
            plan.run(at_a + of_a, at_b + of_b, at_out + of_out)
        return out

    def _plan(self, a: Array, b: Array, out: Array | None, dtype: Any) -> Plan | None:
        """How to multiply arrays that lie like these; None where that is not for this way."""
        if a.dtype != b.dtype or a.ndim < 2 or b.ndim < 2 or not self.takes(a.dtype):
            return None
        if a.shape[-1] != b.shape[-2]:
            return None
        half = a.dtype.itemsize == 2
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
            return Plan(shape, wanted, None)
        if (_rows(out) or (True,))[0]:
            return None
        copied = tuple(i for i, x in enumerate((a, b)) if not _rows(x))
        a, b = (self._cupy.ascontiguousarray(x) if i in copied else x for i, x in enumerate((a, b)))
        count, steps, begins = stacks(leading, [_leading_strides(x, leading) for x in (a, b, out)])
        of_a, of_b, of_out = (
            Stack(*_rows(x), step=step)  # type: ignore[misc]
            for x, step in zip((a, b, out), steps, strict=True)
        )
        sizes = a.shape[-2], a.shape[-1], b.shape[-1]
        run = self.ready((a.dtype.name, out.dtype.name), count, sizes, of_a, of_b, of_out)
        itemsizes = a.itemsize, b.itemsize, out.itemsize
        in_bytes = [tuple(n * size for n, size in zip(begin, itemsizes, strict=True)) for begin in begins]
        return Plan(shape, wanted, run, copied, in_bytes)

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
        algorithm, single = self._algorithm, self._single

        def run_single(at_a: int, at_b: int, at_out: int, factors: Any = factors) -> None:
            single(
                handle_of(), int(b.turned), int(a.turned), N, M, K,
                alpha, at_b, kind, b.lead, at_a, kind, a.lead, beta, at_out, kind_out, out.lead, compute, algorithm,
            )  # fmt: skip

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

        return run if half or count > 1 else run_single


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
