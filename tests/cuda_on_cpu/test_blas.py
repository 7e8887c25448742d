"""Products of the bench's cuBLAS against NumPy in float64, and what it refuses."""

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of, run_on_bench

pytestmark = needs_bench

COMMON = """
import ctypes, itertools
from cupy.cuda import cublas
handle = cupy.cuda.get_cublas_handle()
rng = np.random.default_rng(0)
KIND = {"float16": 2, "float32": 0, "float64": 1, "bfloat16": 14}

def numbers(dtype, *values):
    array = np.array(values, dtype="float64" if dtype == "float64" else "float32")
    return array, [array.ctypes.data + i * array.itemsize for i in range(len(values))]

def stored(rows, columns, leading, count, dtype):
    # `count` matrices by columns, `leading` apart, with NaN between them
    whole = np.full((count, columns, leading), np.nan, dtype="float32" if dtype == "bfloat16" else dtype)
    whole[:, :, :rows] = rng.standard_normal((count, columns, rows))
    on_device = cupy.asarray(whole)
    if dtype == "bfloat16":  # the upper halves of floats, which are cut off so that both sides hold the same
        bits = whole.view(np.uint32) & 0xffff0000
        whole, on_device = bits.view(np.float32), cupy.asarray((bits >> 16).astype(np.uint16))
    return whole[:, :, :rows].swapaxes(1, 2).astype(np.float64), on_device

def as_float64(on_device, rows, dtype):
    host = on_device.get()
    if dtype == "bfloat16":
        host = (host.astype(np.uint32) << 16).view(np.float32)
    return host[:, :, :rows].swapaxes(1, 2).astype(np.float64), host[:, :, rows:]
"""


@pytest.mark.parametrize(
    ("dtype", "out", "compute", "bound"),
    [
        ("float32", "float32", 68, 1e-6),
        ("float64", "float64", 70, 1e-15),
        ("float16", "float16", 68, 6e-4),
        ("float16", "float32", 68, 1e-6),
        ("bfloat16", "bfloat16", 68, 5e-3),
        ("bfloat16", "float32", 68, 1e-6),
        ("float32", "float32", 77, 1.5e-3),
    ],
)
def test_strided_batches(dtype: str, out: str, compute: int, bound: float) -> None:
    """Every pair of operations, leading dimensions with gaps, and a result that is added to what is there."""
    lines = output_of(
        COMMON
        + f"""
dtype, out, compute, bound = {dtype!r}, {out!r}, {compute}, {bound}
m, n, k, count, errors = 5, 7, 131, 3, []
for turn_a, turn_b, beta in itertools.product((0, 1), (0, 1), (0.0, -0.5)):
    a, at_a = stored(*((k, m) if turn_a else (m, k)), (k if turn_a else m) + 2, count, dtype)
    b, at_b = stored(*((n, k) if turn_b else (k, n)), (n if turn_b else k) + 3, count, dtype)
    c, at_c = stored(m, n, m + 1, count, out)
    keep, (alpha, beta_at) = numbers(dtype, 0.75, beta)
    cublas.gemmStridedBatchedEx(
        handle, turn_a, turn_b, m, n, k, alpha,
        at_a.data.ptr, KIND[dtype], at_a.shape[2], at_a.shape[1] * at_a.shape[2],
        at_b.data.ptr, KIND[dtype], at_b.shape[2], at_b.shape[1] * at_b.shape[2],
        beta_at, at_c.data.ptr, KIND[out], at_c.shape[2], at_c.shape[1] * at_c.shape[2], count, compute, -1)
    left, right = a.swapaxes(1, 2) if turn_a else a, b.swapaxes(1, 2) if turn_b else b
    wanted = 0.75 * left @ right + beta * c
    size = 0.75 * abs(left) @ abs(right) + abs(beta * c)
    got, between = as_float64(at_c, m, out)
    errors.append(float((abs(got - wanted) / size).max()))
    assert np.isnan(between).all()
print(max(errors) <= bound, max(errors) > 0)
"""
    )
    assert lines == ["True True"]


def test_half_precision_is_summed_in_float32() -> None:
    """2,048 ones and a 2,049th: float16 could not count beyond 2,048."""
    lines = output_of(
        COMMON
        + """
ones = cupy.ones((1, 2049), dtype=cupy.float16)
out = cupy.zeros(1, dtype=cupy.float32)
keep, (one, zero) = numbers("float16", 1, 0)
p = ones.data.ptr
cublas.gemmStridedBatchedEx(
    handle, 0, 0, 1, 1, 2049, one, p, 2, 1, 0, p, 2, 2049, 0, zero, out.data.ptr, 0, 1, 0, 1, 68, -1)
print(float(out[0]))
"""
    )
    assert lines == ["2049.0"]


def test_tf32_rounds_its_operands() -> None:
    lines = output_of(
        COMMON
        + """
x = cupy.full((1, 1), 1 + 2**-12, dtype=cupy.float32)
for compute in (68, 77):
    out = cupy.zeros(1, dtype=cupy.float32)
    keep, (one, zero) = numbers("float32", 1, 0)
    p = x.data.ptr
    cublas.gemmStridedBatchedEx(
        handle, 0, 0, 1, 1, 1, one, p, 0, 1, 0, p, 0, 1, 0, zero, out.data.ptr, 0, 1, 0, 1, compute, -1)
    print(float(out[0]) == (1 + 2**-12) ** 2 if compute == 68 else float(out[0]))
"""
    )
    assert lines in (["True", "1.0"], ["False", "1.0"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_cupy_makes_of_products(dtype: str) -> None:
    lines = output_of(
        f"""
        rng = np.random.default_rng(0)
        for a, b in [((5,), (5,)), ((3, 5), (5,)), ((3, 5), (5, 7)), ((2, 3, 5), (2, 5, 7)), ((2, 1, 3, 5), (4, 5, 7))]:
            x, y = (rng.standard_normal(shape).astype({dtype!r}) for shape in (a, b))
            got = cupy.matmul(cupy.asarray(x), cupy.asarray(y)).get().astype("float64")
            exact = np.matmul(x.astype("float64"), y.astype("float64"))
            size = np.matmul(abs(x).astype("float64"), abs(y).astype("float64"))
            print((abs(got - exact) <= 2 * np.finfo({dtype!r}).eps * size).all())
        x = rng.standard_normal((3, 5)).astype({dtype!r})
        print(bool(abs(cupy.vdot(cupy.asarray(x), cupy.asarray(x)) - np.vdot(x, x).astype("float64")) < 0.05))
        """
    )
    assert lines == ["True"] * 6


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("7, 5, 3, 2, 7, 5, 0, 7, 0, 68", "CUBLAS_STATUS_INVALID_VALUE"),  # a leading dimension below the rows
        ("7, 5, 3, 7, 3, 7, 1, 1, 1, 68", "CUBLAS_STATUS_NOT_SUPPORTED"),  # float64 summed in float32
        ("7, 5, 3, 7, 3, 7, 0, 0, 2, 68", "CUBLAS_STATUS_NOT_SUPPORTED"),  # float32 to float16
        ("7, 5, 3, 7, 3, 7, 2, 0, 0, 68", "CUBLAS_STATUS_NOT_SUPPORTED"),  # operands of two types
        ("7, 5, 3, 7, 3, 7, 2, 2, 2, 64", "CUBLAS_STATUS_NOT_SUPPORTED"),  # summed in float16, which is not there
        ("7, 5, 3, 7, 3, 7, 2, 2, 2, 77", "CUBLAS_STATUS_NOT_SUPPORTED"),  # TF32 of float16
        ("70, 50, 30, 70, 30, 70, 0, 0, 0, 68", "CUBLAS_STATUS_EXECUTION_FAILED"),  # beyond an allocation
    ],
)
def test_refusals(call: str, status: str) -> None:
    done = run_on_bench(
        COMMON
        + f"""
m, n, k, lda, ldb, ldc, type_a, type_b, type_c, compute = {call}
x = cupy.zeros(100, dtype=cupy.float64)
keep, (one, zero) = numbers("float32", 1, 0)
p = x.data.ptr
refused(cublas.gemmStridedBatchedEx, handle, 0, 0, m, n, k, one, p, type_a, lda, 0, p, type_b, ldb, 0,
        zero, p, type_c, ldc, 0, 1, compute, -1)
"""
    )
    assert done.stdout.splitlines() == [status], done.stderr
    assert "cuda_on_cpu: cublasGemmStridedBatchedEx: " in done.stderr


def test_bfloat16_needs_capability_8() -> None:
    code = (
        COMMON
        + """
x = cupy.zeros(1, dtype=cupy.float32)
keep, (one, zero) = numbers("float32", 1, 0)
p = x.data.ptr
refused(cublas.gemmStridedBatchedEx, handle, 0, 0, 1, 1, 1, one, p, 14, 1, 0, p, 14, 1, 0, zero, p, 14, 1, 0, 1, 68, -1)
"""
    )
    assert output_of(code, capability="8.0") == ["not refused"]
    assert output_of(code, capability="7.5") == ["CUBLAS_STATUS_NOT_SUPPORTED"]


def test_batches_by_pointers() -> None:
    lines = output_of(
        COMMON
        + """
m, n, k, count = 3, 4, 5, 2
a, at_a = stored(m, k, m, count, "float32")
b, at_b = stored(k, n, k, count, "float32")
c, at_c = stored(m, n, m, count, "float32")
keep, (one, zero) = numbers("float32", 1, 0)
lists = [cupy.asarray([x.data.ptr + i * x[0].nbytes for i in range(count)]) for x in (at_a, at_b, at_c)]
cublas.sgemmBatched(
    handle, 0, 0, m, n, k, one, lists[0].data.ptr, m, lists[1].data.ptr, k, zero, lists[2].data.ptr, m, count)
print(np.allclose(as_float64(at_c, m, "float32")[0], a @ b, rtol=1e-5, atol=1e-5))
"""
    )
    assert lines == ["True"]
