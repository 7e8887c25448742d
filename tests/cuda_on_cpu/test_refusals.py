"""What CUDA refuses, the bench refuses: each provoked by a tiny kernel or call, with CUDA's own error."""

import pytest
from cuda_on_cpu.bench_process import needs_bench, output_of, run_on_bench

pytestmark = needs_bench

VALUE = "CUDA_ERROR_INVALID_VALUE"


def test_grids_and_blocks() -> None:
    lines = output_of(
        """
        k = kernel("")
        x = cupy.zeros(4, dtype=cupy.float32)
        for grid, block in [
            ((1, 65536), (1,)), ((1, 1, 65536), (1,)), ((1,), (1025,)), ((1,), (33, 32)), ((1,), (1, 1, 65)),
        ]:
            refused(k, grid, block, (x,))
        for grid, block in [((100000,), (1,)), ((1, 65535), (1,)), ((1,), (1024,)), ((1,), (1, 1, 64))]:
            refused(k, grid, block, (x,))
        """
    )
    assert lines == [VALUE] * 5 + ["not refused"] * 4


def test_launch_bounds() -> None:
    lines = output_of(
        """
        module = cupy.RawModule(code='''
            #define MOST 64
            extern "C" __global__ void __launch_bounds__(MOST) k() {}''')
        refused(module.get_function("k"), (1,), (64,), ())
        refused(module.get_function("k"), (1,), (65,), ())
        """
    )
    assert lines == ["not refused", VALUE]


@pytest.mark.parametrize(
    ("capability", "kilobytes"),
    [("7.5", 64), ("8.0", 163), ("8.6", 99), ("8.9", 99), ("9.0", 227), ("10.0", 227), ("12.0", 99)],
)
def test_shared_memory_by_capability(capability: str, kilobytes: int) -> None:
    lines = output_of(
        f"""
        k = kernel("extern __shared__ float s[]; x[0] = s[0];")
        x = cupy.zeros(4, dtype=cupy.float32)
        most = {kilobytes} * 1024
        print(cupy.cuda.Device().compute_capability, runtime.deviceGetAttribute(97, 0) == most)
        refused(k, (1,), (1,), (x,), shared_mem=48 * 1024)
        refused(k, (1,), (1,), (x,), shared_mem=48 * 1024 + 1)
        refused(setattr, k, "max_dynamic_shared_size_bytes", most + 1)
        k.max_dynamic_shared_size_bytes = most
        refused(k, (1,), (1,), (x,), shared_mem=most)
        refused(k, (1,), (1,), (x,), shared_mem=most + 1)
        """,
        capability=capability,
    )
    assert lines == [f"{capability.replace('.', '')} True", "not refused", VALUE, VALUE, "not refused", VALUE]


def test_static_and_dynamic_shared_memory_together() -> None:
    lines = output_of(
        """
        k = kernel("__shared__ float own[4096]; extern __shared__ float s[]; own[0] = s[0] = 1; x[0] = own[0];")
        x = cupy.zeros(4, dtype=cupy.float32)
        refused(k, (1,), (1,), (x,), shared_mem=32 * 1024)
        refused(k, (1,), (1,), (x,), shared_mem=32 * 1024 + 1)
        large = kernel("__shared__ float own[12289]; own[0] = 1; x[0] = own[0];")
        refused(large, (1,), (1,), (x,))
        """
    )
    assert lines == ["not refused", VALUE, "CUDA_ERROR_INVALID_SOURCE"]


def test_an_unknown_capability_ends_the_process() -> None:
    done = run_on_bench("cupy.zeros(3)", capability="5.0")
    assert done.returncode == 70
    assert "CUDA_ON_CPU_CAPABILITY is 5.0, must be one of: 7.5 8.0" in done.stderr


ILLEGAL = "CUDA_ERROR_ILLEGAL_ADDRESS"


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("x[4] = 1;", ILLEGAL, "16 bytes into an allocation of 16 bytes of device 0"),
        ("x[-2000] = 1;", ILLEGAL, "8000 bytes before an allocation"),
        ("x[0] = x[4];", ILLEGAL, "16 bytes into an allocation of 16 bytes"),
        ("*(float *)0 = 1;", ILLEGAL, "which belongs to no allocation"),
        ("*(float2 *)(x + 1) = float2{1, 2};", "CUDA_ERROR_MISALIGNED_ADDRESS", "not aligned"),
        ("float4 v = *(const float4 *)(x + 1); x[0] = v.x;", "CUDA_ERROR_MISALIGNED_ADDRESS", "not aligned"),
        ("int4 v = *(const int4 *)(x + 2); x[0] = v.x;", "CUDA_ERROR_MISALIGNED_ADDRESS", "not aligned"),
        ("assert(x[0] == 7);", "CUDA_ERROR_ASSERT", "assertion `x[0] == 7` failed"),
        ("int zero = x[0]; x[0] = 7 / zero;", "CUDA_ERROR_LAUNCH_FAILED", "divided by zero"),
        ("extern __shared__ float s[]; s[1] = 1;", ILLEGAL, "writes behind its shared memory"),
    ],
)
def test_faults_of_a_kernel(body: str, error: str, text: str) -> None:
    done = run_on_bench(
        f"""
        x = cupy.zeros(4, dtype=cupy.float32)
        refused(kernel({body!r}), (1,), (1,), (x,), shared_mem=4)
        # The context is lost, as on a device.
        refused(x.get)
        """
    )
    runtime_name = {
        ILLEGAL: "cudaErrorIllegalAddress",
        "CUDA_ERROR_MISALIGNED_ADDRESS": "cudaErrorMisalignedAddress",
        "CUDA_ERROR_ASSERT": "cudaErrorAssert",
        "CUDA_ERROR_LAUNCH_FAILED": "cudaErrorLaunchFailure",
    }[error]
    assert done.stdout.splitlines() == [error, runtime_name], done.stderr
    assert done.stderr.count("cuda_on_cpu: ") == 1
    assert "cuda_on_cpu: kernel k, block (0, 0, 0), thread (0, 0, 0): " in done.stderr
    assert text in done.stderr


@pytest.mark.parametrize("when", ["x.get()", "del x", "pass"])
def test_what_is_written_into_a_guard_zone_is_found(when: str) -> None:
    """At a synchronisation, at the release, and at the end of the process: in front of an array no page is near."""
    done = run_on_bench(
        f"""
        x = cupy.zeros(3, dtype=cupy.float32)
        kernel("x[-1] = 1;")((1,), (1,), (x,))
        {when}
        """
    )
    assert done.returncode != 0
    assert "cuda_on_cpu: something was written right before an allocation of 12 bytes" in done.stderr


def test_memory_that_was_never_written_is_nan() -> None:
    lines = output_of(
        """
        print(bool(cupy.isnan(cupy.empty((5, 7), dtype=cupy.float64)).all()))
        print(bool(cupy.isnan(cupy.empty(5, dtype=cupy.float16)).all()))
        x = cupy.zeros(1, dtype=cupy.float32)
        kernel("__shared__ float own[8]; extern __shared__ float s[]; x[0] = isnan(own[3]) && isnan(s[3]);")(
            (1,), (1,), (x,), shared_mem=16)
        print(float(x[0]))
        """
    )
    assert lines == ["True", "True", "1.0"]


def test_a_stream_that_captures() -> None:
    lines = output_of(
        """
        k = kernel("x[0] += 1;")
        x = cupy.zeros(1, dtype=cupy.float32)
        k((1,), (1,), (x,))
        stream = cupy.cuda.Stream()
        with stream:
            stream.begin_capture()
            k((1,), (1,), (x,))
            k((1,), (1,), (x,))
            graph = stream.end_capture()
            print(float(x[0]))
            graph.launch()
            graph.launch()
        print(float(x[0]))
        for forbidden in [
            lambda: runtime.streamSynchronize(stream.ptr),
            lambda: runtime.deviceSynchronize(),
            lambda: runtime.memsetAsync(x.data.ptr, 0, 4, 0),
            lambda: runtime.malloc(8),
        ]:
            stream.begin_capture()
            refused(forbidden)
            refused(stream.end_capture)
        """
    )
    invalidated = "cudaErrorStreamCaptureInvalidated"
    unsupported = "cudaErrorStreamCaptureUnsupported"
    assert lines[:2] == ["1.0", "5.0"]
    assert lines[2:] == [
        *(unsupported, invalidated),
        *(unsupported, invalidated),
        *("cudaErrorStreamCaptureImplicit", invalidated),
        *(unsupported, invalidated),
    ]


def test_a_product_in_a_capture() -> None:
    done = run_on_bench(
        """
        x = cupy.ones((3, 3), dtype=cupy.float32)
        x @ x
        stream = cupy.cuda.Stream()
        handle = cupy.cuda.get_cublas_handle()
        number = np.ones(1, dtype=np.float32).ctypes.data
        cupy.cuda.cublas.setStream(handle, stream.ptr)
        stream.begin_capture()
        p = x.data.ptr
        from cupy_backends.cuda.libs import cublas
        import ctypes, os
        library = ctypes.CDLL(os.environ["CUDA_ON_CPU_LIBRARIES"] + "/libcublas.so.13")
        v = ctypes.c_void_p
        print(library.cublasSgemm_v2(v(handle), 0, 0, 3, 3, 3, v(number), v(p), 3, v(p), 3, v(number), v(p), 3))
        """
    )
    assert done.stdout.splitlines() == ["13"], done.stderr
    assert "cublasSgemm_v2 is called while its stream captures" in done.stderr


def test_what_is_not_there_ends_the_process_by_name() -> None:
    for code, name in [
        ("cupy.sort(cupy.arange(5))", "called by cupy.cuda.thrust"),
        ("cupy.random.default_rng(1)", "called by cupy.random._generator_api"),
        ("runtime.deviceGetLimit(0)", "cudaDeviceGetLimit"),
        ("from cupy import cublas; cublas.nrm2(cupy.ones(3))", "cublasDnrm2_v2"),
    ]:
        done = run_on_bench(code)
        assert done.returncode == -6, done.stderr
        assert name in done.stderr
        assert "is not there" in done.stderr


def test_copies_out_of_range() -> None:
    lines = output_of(
        """
        x = cupy.zeros(4, dtype=cupy.float32)
        y = np.zeros(8, dtype=np.float32)
        refused(runtime.memcpy, y.ctypes.data, x.data.ptr, 16, 2)
        refused(runtime.memcpy, y.ctypes.data, x.data.ptr, 20, 2)
        refused(runtime.memcpy, x.data.ptr, y.ctypes.data, 20, 1)
        refused(runtime.memcpy, y.ctypes.data, y.ctypes.data, 16, 2)
        refused(runtime.memset, x.data.ptr + 4, 0, 16)
        """
    )
    assert lines == ["not refused", *["cudaErrorInvalidValue"] * 4]
