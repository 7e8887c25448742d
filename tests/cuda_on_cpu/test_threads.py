"""Threads of a block: barriers, shuffles, votes, both orders of turns."""

import pytest
from cuda_on_cpu.bench_process import needs_bench, output_of, run_on_bench

pytestmark = needs_bench

ORDERS = ("up", "down", "both")


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_in_three_dimensions_reverses_an_array(order: str) -> None:
    lines = output_of(
        """
        x = cupy.arange(3 * 2 * 2 * 5, dtype=cupy.float32)
        kernel('''
            __shared__ float own[12];
            const int at = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
            float *const here = x + 12 * (blockIdx.x + gridDim.x * blockIdx.y);
            own[at] = here[at];
            __syncthreads();
            here[at] = own[11 - at];
        ''')((1, 5), (3, 2, 2), (x,))
        print((x.get().reshape(5, 12) == np.arange(60).reshape(5, 12)[:, ::-1]).all())
        """,
        order=order,
    )
    assert lines == ["True"]


SHUFFLES = {
    "__shfl_xor_sync(~0u, v, 5)": lambda i: i // 32 * 32 + (i % 32 ^ 5),
    "__shfl_sync(~0u, v, 3)": lambda i: i // 32 * 32 + 3,
    "__shfl_sync(~0u, v, 3, 8)": lambda i: i // 8 * 8 + 3,
    "__shfl_down_sync(~0u, v, 4)": lambda i: i + 4 if i % 32 < 28 else i,
    "__shfl_up_sync(~0u, v, 4, 16)": lambda i: i - 4 if i % 16 >= 4 else i,
}


@pytest.mark.parametrize("expression", SHUFFLES)
@pytest.mark.parametrize("order", ["up", "down"])
def test_shuffles(expression: str, order: str) -> None:
    lines = output_of(
        f"""
        x = cupy.arange(64, dtype=cupy.float64)
        kernel("const double v = x[threadIdx.x]; x[threadIdx.x] = {expression};", "double *x")((1,), (64,), (x,))
        print([int(v) for v in x.get()])
        """,
        order=order,
    )
    assert lines == [str([SHUFFLES[expression](i) for i in range(64)])]


def test_votes_and_a_part_of_a_warp() -> None:
    lines = output_of(
        """
        x = cupy.zeros(32, dtype=cupy.int64)
        kernel('''
            const int i = threadIdx.x;
            x[i] = __ballot_sync(~0u, i % 3 == 0) == 0x49249249u;
            x[i] += 10 * __any_sync(~0u, i == 31) + 100 * __all_sync(~0u, i < 31);
            if (i < 8) x[i] += 1000 * __shfl_xor_sync(0xffu, i, 1);
        ''', "long long *x")((1,), (32,), (x,))
        print(x.get().tolist())
        """
    )
    assert lines == [str([11 + (1000 * (i ^ 1) if i < 8 else 0) for i in range(32)])]


RACE = "x[threadIdx.x] = threadIdx.x ? x[threadIdx.x - 1] : 0;"


def test_a_race_is_seen_in_both_orders() -> None:
    code = f"x = cupy.arange(32, dtype=cupy.float32); refused(kernel({RACE!r}), (1,), (32,), (x,))"
    assert output_of(code, order="up") == output_of(code, order="down") == ["not refused"]
    done = run_on_bench(code, order="both")
    assert done.stdout.splitlines() == ["CUDA_ERROR_LAUNCH_FAILED"]
    assert "kernel k: its result depends on the order of its threads" in done.stderr


def test_a_missing_barrier_is_seen_in_both_orders() -> None:
    body = "extern __shared__ float s[]; s[threadIdx.x] = x[threadIdx.x]; BARRIER x[threadIdx.x] = s[31 - threadIdx.x];"
    code = "x = cupy.arange(32, dtype=cupy.float32); refused(kernel({!r}), (1,), (32,), (x,), shared_mem=128)"
    assert output_of(code.format(body.replace("BARRIER", "__syncthreads();")), order="both") == ["not refused"]
    assert run_on_bench(code.format(body.replace("BARRIER", "")), order="both").stdout.split() == [
        "CUDA_ERROR_LAUNCH_FAILED"
    ]


def test_both_orders_begin_with_the_same_memory() -> None:
    lines = output_of(
        """
        x = cupy.ones(5, dtype=cupy.float32)
        kernel("x[threadIdx.x] *= 2; __syncthreads();")((1,), (5,), (x,))
        print(x.get().tolist())
        """,
        order="both",
    )
    assert lines == [str([2.0] * 5)]


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 7) __syncthreads();",
        "if (threadIdx.x % 2) __syncthreads(); else __syncwarp();",
        "if (threadIdx.x < 31) x[0] = __shfl_xor_sync(~0u, 1.0f, 1);",
        "x[0] = __shfl_xor_sync(threadIdx.x < 16 ? 1u : 2u, 1.0f, 1);",
    ],
)
def test_a_barrier_that_is_not_reached_by_all(body: str) -> None:
    done = run_on_bench(f"x = cupy.zeros(1, dtype=cupy.float32); refused(kernel({body!r}), (1,), (32,), (x,))")
    assert done.stdout.splitlines() == ["CUDA_ERROR_LAUNCH_FAILED"], done.stderr
    assert "a barrier is not reached by all" in done.stderr


def test_a_warp_that_is_not_full_shuffles() -> None:
    lines = output_of(
        """
        x = cupy.arange(40, dtype=cupy.float32)
        kernel('''
            float sum = x[threadIdx.x];
            for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
            x[threadIdx.x] = sum;
        ''')((1,), (40,), (x,))
        print((x.get().reshape(5, 8) == np.arange(40).reshape(5, 8).sum(1)[:, None]).all())
        """
    )
    assert lines == ["True"]


def test_atomics_and_templates() -> None:
    lines = output_of(
        """
        x = cupy.zeros(2, dtype=cupy.float32)
        kernel("atomicAdd(x, 1.0f); atomicAdd(x + 1, (float)threadIdx.x);")((3,), (32,), (x,))
        print(x.get().tolist())
        module = cupy.RawModule(
            code="template <class T> __global__ void fill(T *x, T value) { x[threadIdx.x] = value; }",
            name_expressions=["fill<float>", "fill<double>"], options=("-std=c++17",))
        y = cupy.zeros(2)
        module.get_function("fill<double>")((1,), (2,), (y, 0.1))
        print(y.get().tolist())
        """
    )
    assert lines == ["[96.0, 1488.0]", "[0.1, 0.1]"]
