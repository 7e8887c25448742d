"""Two devices: each has its own memory, kernels, streams, events and cuBLAS handle."""

from cuda_on_cpu.bench_process import needs_bench, output_of, run_on_bench

pytestmark = needs_bench

HANDLE = "cudaErrorInvalidResourceHandle"


def test_one_device_is_the_default() -> None:
    lines = output_of("print(runtime.getDeviceCount()); refused(runtime.setDevice, 1)")
    assert lines == ["1", "cudaErrorInvalidDevice"]


def test_memory_belongs_to_the_device_that_was_current() -> None:
    lines = output_of(
        """
        print(runtime.getDeviceCount())
        with cupy.cuda.Device(1):
            x = cupy.arange(3)
        print(x.device.id, runtime.pointerGetAttributes(x.data.ptr).device, runtime.getDevice())
        print(runtime.deviceCanAccessPeer(0, 1))
        with cupy.cuda.Device(0):
            y = cupy.asarray(x.get()) + 1
        print(y.device.id, y.get().tolist())
        """,
        devices=2,
    )
    assert lines == ["2", "1 1 0", "0", "0 [1, 2, 3]"]


def test_a_kernel_cannot_reach_the_memory_of_the_other_device() -> None:
    done = run_on_bench(
        """
        k = kernel("x[0] = 1;")
        with cupy.cuda.Device(1):
            x = cupy.zeros(3, dtype=cupy.float32)
        refused(k, (1,), (1,), (x,))
        """,
        devices=2,
    )
    assert done.stdout.splitlines() == ["CUDA_ERROR_ILLEGAL_ADDRESS"], done.stderr
    assert "0 bytes into an allocation of 12 bytes of device 1" in done.stderr


def test_a_product_cannot_reach_it_either() -> None:
    done = run_on_bench(
        """
        from cupy import cublas
        a = cupy.ones((3, 3), dtype=cupy.float32)
        with cupy.cuda.Device(1):
            b = cupy.ones((3, 3), dtype=cupy.float32)
        handle, one = cupy.cuda.get_cublas_handle(), np.ones(1, dtype=np.float32).ctypes.data
        p = a.data.ptr
        refused(cupy.cuda.cublas.sgemm, handle, 0, 0, 3, 3, 3, one, p, 3, b.data.ptr, 3, one, p, 3)
        """,
        devices=2,
    )
    assert done.stdout.splitlines() == ["CUBLAS_STATUS_EXECUTION_FAILED"], done.stderr
    assert "an operand is of device 1, the current one is 0" in done.stderr


def test_streams_and_events_belong_to_a_device() -> None:
    lines = output_of(
        """
        k = kernel("x[0] = 1;")
        x = cupy.zeros(3, dtype=cupy.float32)
        k((1,), (1,), (x,))
        event = cupy.cuda.Event()
        with cupy.cuda.Device(1):
            stream = cupy.cuda.Stream()
            there = cupy.cuda.Event()
        refused(runtime.memsetAsync, x.data.ptr, 0, 4, stream.ptr)
        refused(runtime.eventRecord, event.ptr, stream.ptr)
        with cupy.cuda.Device(1):
            refused(runtime.eventRecord, there.ptr, stream.ptr)
        refused(runtime.streamSynchronize, stream.ptr)
        """,
        devices=2,
    )
    assert lines == [HANDLE, HANDLE, "not refused", "not refused"]


def test_a_kernel_is_compiled_for_each_device() -> None:
    lines = output_of(
        """
        k = kernel("x[0] = 7;")
        for device in (0, 1):
            with cupy.cuda.Device(device):
                x = cupy.zeros(1, dtype=cupy.float32)
                k((1,), (1,), (x,))
                print(float(x[0]))
        """,
        devices=2,
    )
    assert lines == ["7.0", "7.0"]
