"""Counts, the log, and the mode in which nothing is done."""

from pathlib import Path

from cuda_on_cpu.bench_process import needs_bench, output_of
from cuda_on_cpu.counts import Counts

pytestmark = needs_bench

PROGRAM = """
x = cupy.asarray(np.ones((3, 5), dtype=np.float32))
k = kernel("x[0] = 7;")
k((1,), (1,), (x,))
before = counts()
k((1,), (1,), (x,))
k((1,), (1,), (x,))
y = x @ x.T
z = cupy.empty_like(y)
z.data.copy_from_device(y.data, y.nbytes)
w = cupy.exp(z)
host = cupy.asnumpy(w)
cupy.asarray(np.zeros(3))
cupy.cuda.Device().synchronize()
did = counts() - before
print(did)
print(did.all_launches)
"""

EXPECTED = Counts(
    launches={"cupy_exp__float32_float32": 1, "k": 2},
    products=1,
    to_device=1,
    to_host=1,
    on_device=1,
    synchronizations=2,
)


def test_counts_of_a_known_program(tmp_path: Path) -> None:
    lines = output_of(PROGRAM, log=tmp_path / "log")
    assert lines == [str(EXPECTED), "3"]
    log = (tmp_path / "log").read_text().splitlines()
    assert sum(line.startswith("launch k: grid (1, 1, 1), block (1, 1, 1), 0 bytes shared") for line in log) == 3
    assert "product cublasGemmEx: 3 x 3 x 5, 1 times" in log
    assert "copy on device: 36 bytes" in log
    assert "copy to host: 36 bytes" in log
    assert "synchronize: cudaDeviceSynchronize" in log


def test_counts_are_the_same_where_nothing_is_done() -> None:
    assert output_of(PROGRAM, mode="idle")[:2] == [str(EXPECTED), "3"]


def test_idle_leaves_memory_alone() -> None:
    lines = output_of(
        """
        x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
        kernel("x[0] = 7;")((1,), (1,), (x,))
        x *= 2
        out = cupy.asarray(np.zeros((2, 2), dtype=np.float32))
        cupy.matmul(x, x.T, out=out)
        x[0] = x[1]
        x.fill(3)
        print(x.get().tolist(), out.get().tolist())
        """,
        mode="idle",
    )
    assert lines == ["[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] [[0.0, 0.0], [0.0, 0.0]]"]
