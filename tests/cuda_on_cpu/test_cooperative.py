"""Cooperative launches: all blocks at once, which wait for each other and keep their own shared memory."""

from textwrap import dedent

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of, run_on_bench

pytestmark = needs_bench

PRELUDE = '''
import ctypes

def together(k, blocks, threads, arrays, shared=0):
    values = (ctypes.c_uint64 * len(arrays))(*(array.data.ptr for array in arrays))
    first = ctypes.addressof(values)
    at = (ctypes.c_uint64 * len(arrays))(*range(first, first + 8 * len(arrays), 8))
    grid = (blocks, 1, 1, threads, 1, 1)
    cupy.cuda.driver.launchCooperativeKernel(k.kernel.ptr, *grid, shared, 0, ctypes.addressof(at))

WAITING = """
__device__ void wait_for(unsigned *count, unsigned wanted) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(count, 1u);
        while (*(volatile unsigned *)count < wanted) __nanosleep(20);
        __threadfence();
    }
    __syncthreads();
}
"""
'''


@pytest.mark.parametrize("order", ["up", "down", "both"])
def test_blocks_read_what_others_wrote(order: str) -> None:
    """A ring: in every step each block adds what the block before it had, in shared memory that stays its own."""
    lines = output_of(
        PRELUDE
        + dedent(
            """
        k = kernel('''
            __shared__ float own[2];
            extern __shared__ float more[];
            own[threadIdx.x] = blockIdx.x + 100 * threadIdx.x;
            for (int t = 0; t < 3; t++) {
                more[threadIdx.x] = own[threadIdx.x];
                x[2 * (t % 2 * 5 + blockIdx.x) + threadIdx.x] = more[threadIdx.x];
                wait_for(count, 5 * (t + 1));
                own[threadIdx.x] += x[2 * (t % 2 * 5 + (blockIdx.x + 4) % 5) + threadIdx.x];
            }
            x[20 + 2 * blockIdx.x + threadIdx.x] = own[threadIdx.x];
        ''', "float *x, unsigned *count", before=WAITING)
        x, count = cupy.zeros(30, dtype=cupy.float32), cupy.zeros(1, dtype=cupy.uint32)
        together(k, 5, 2, (x, count), 8)
        own = np.arange(5.0)[:, None] + 100 * np.arange(2.0)
        for _ in range(3):
            own = own + np.roll(own, 1, axis=0)
        print((x.get()[20:].reshape(5, 2) == own).all(), counts().launches["k"])
        """
        ),
        order=order,
    )
    assert lines == ["True 1"]


def test_an_order_that_shows() -> None:
    """Without the wait a block sees what the order of blocks makes of it."""
    done = run_on_bench(
        PRELUDE
        + dedent(
            """
        k = kernel("__syncthreads(); x[blockIdx.x] = x[(blockIdx.x + 1) % 3] + 1;")
        refused(together, k, 3, 1, (cupy.zeros(3, dtype=cupy.float32),))
        """
        ),
        order="both",
    )
    assert done.stdout.splitlines() == ["CUDA_ERROR_LAUNCH_FAILED"], done.stderr
    assert "its result depends on the order of its threads" in done.stderr


@pytest.mark.parametrize("cooperative", [False, True])
def test_who_waits_in_vain_is_found(cooperative: bool) -> None:
    """For one block more than there are; and for another block where they are not launched together."""
    launch = "together, k, 2, 2, (x, count)" if cooperative else "k, (2,), (2,), (x, count)"
    done = run_on_bench(
        PRELUDE
        + dedent(
            f"""
        k = kernel("wait_for(count, {3 if cooperative else 2});", "float *x, unsigned *count", before=WAITING)
        x, count = cupy.zeros(1, dtype=cupy.float32), cupy.zeros(1, dtype=cupy.uint32)
        refused({launch})
        """
        )
    )
    assert done.stdout.splitlines() == ["CUDA_ERROR_LAUNCH_FAILED"], done.stderr
    assert "what is waited for does not come: 1 threads wait for their block" in done.stderr


def test_a_trap_ends_the_kernel() -> None:
    done = run_on_bench("refused(kernel('__trap();'), (1,), (1,), (cupy.zeros(1, dtype=cupy.float32),))")
    assert done.stdout.splitlines() == ["CUDA_ERROR_LAUNCH_FAILED"], done.stderr


@pytest.mark.parametrize(
    ("capability", "threads", "shared", "held"),
    [
        ("7.5", 256, 0, 4), ("8.0", 256, 0, 8), ("8.6", 256, 0, 6), ("9.0", 256, 0, 8), ("9.0", 32, 0, 32),
        ("7.5", 64, 33, 1), ("8.6", 64, 33, 2), ("9.0", 64, 75, 3), ("9.0", 64, 227, 1),
    ],
)  # fmt: skip
def test_more_blocks_than_the_device_holds(capability: str, threads: int, shared: int, held: int) -> None:
    lines = output_of(
        PRELUDE
        + dedent(
            f"""
        k = kernel("__syncthreads();")
        k.max_dynamic_shared_size_bytes = {shared} * 1024
        x, most = cupy.zeros(1, dtype=cupy.float32), runtime.deviceGetAttribute(16, 0)
        print(cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(k.kernel.ptr, {threads}, {shared} * 1024))
        refused(together, k, {held} * most + 1, {threads}, (x,), {shared} * 1024)
        """
        ),
        capability=capability,
    )
    assert lines == [str(held), "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"]
