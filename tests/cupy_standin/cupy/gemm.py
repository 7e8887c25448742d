"""cuBLAS' product of stacks of matrices in NumPy, from the numbers that the real one is called with.

Pointers are followed, so that a wrong one, a wrong stride or a wrong leading dimension gives wrong results or a crash.
"""

import ctypes
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy

KINDS = {2: "float16", 14: ml_dtypes.bfloat16, 0: "float32", 1: "float64"}
COMPUTE = {68: "float32", 77: "float32", 70: "float64"}


def columns(pointer: int, kind: int, shape: tuple[int, int], lead: int, step: int, count: int) -> numpy.ndarray:
    """A stack of matrices that lie column by column."""
    dtype = numpy.dtype(KINDS[kind])
    rows, width = shape
    if lead < max(1, rows):
        raise ValueError(f"a leading dimension of {lead} for {rows} rows: CUBLAS_STATUS_INVALID_VALUE")
    numbers = (count - 1) * step + (width - 1) * lead + rows
    memory = (ctypes.c_char * (numbers * dtype.itemsize)).from_address(pointer)
    flat = numpy.frombuffer(memory, dtype=dtype)
    strides = tuple(n * dtype.itemsize for n in (step, 1, lead))
    return numpy.lib.stride_tricks.as_strided(flat, (count, rows, width), strides)


def cublas(counts: Any) -> SimpleNamespace:
    """The module `cupy.cuda.cublas`, as far as it is needed."""
    state = SimpleNamespace(mode=0)

    def gemm(
        handle: int, turn_a: int, turn_b: int, m: int, n: int, k: int,
        alpha: int, a: int, kind_a: int, lead_a: int, step_a: int, b: int, kind_b: int, lead_b: int, step_b: int,
        beta: int, c: int, kind_c: int, lead_c: int, step_c: int, count: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        if handle != HANDLE or algorithm != -1 or kind_a != kind_b or kind_c not in (kind_a, 0):
            raise ValueError("CUBLAS_STATUS_NOT_SUPPORTED")
        if (compute == 70) != (kind_a == 1):
            raise ValueError("float64 alone is summed in float64: CUBLAS_STATUS_NOT_SUPPORTED")
        if kind_a in (2, 14) and not state.mode & 16:
            raise ValueError("partial sums might be added in half precision")
        wide = numpy.dtype(COMPUTE[compute])
        number = ctypes.c_double if wide == numpy.float64 else ctypes.c_float
        factor, keep = (number.from_address(pointer).value for pointer in (alpha, beta))
        own_a = columns(a, kind_a, (k, m) if turn_a else (m, k), lead_a, step_a, count)
        own_b = columns(b, kind_b, (n, k) if turn_b else (k, n), lead_b, step_b, count)
        own_c = columns(c, kind_c, (m, n), lead_c, step_c, count)
        left, right = (x.astype(wide).mT if turn else x.astype(wide) for x, turn in ((own_a, turn_a), (own_b, turn_b)))
        result = wide.type(factor) * (left @ right)
        if keep:
            result += wide.type(keep) * own_c.astype(wide)
        own_c[...] = result
        counts.launch("gemm")

    def set_mode(handle: int, mode: int) -> None:
        state.mode = mode

    return SimpleNamespace(
        gemmStridedBatchedEx=gemm,
        getMathMode=lambda handle: state.mode,
        setMathMode=set_mode,
        CUBLAS_GEMM_DEFAULT=-1,
        CUBLAS_COMPUTE_32F=68,
        CUBLAS_COMPUTE_32F_FAST_TF32=77,
        CUBLAS_COMPUTE_64F=70,
    )


HANDLE = 7
