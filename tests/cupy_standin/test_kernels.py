"""The CUDA kernels without a device: compiled for two generations, and run on the CPU, thread by thread."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "backends" / "attnbackends" / "kernels" / "steps.cu"

LAUNCHERS = """
#include "run_cuda_on_cpu.hpp"
#include "{kernels}"
extern "C" {{
void run_lstm_cell(int B, int t, REAL *g, REAL *r, REAL *b, REAL *c, REAL *nc, REAL *tc, REAL *nh, int N, int H) {{
    launch(B, t, [=] {{ lstm_cell(g, r, b, c, nc, tc, nh, N, H); }}); }}
void run_lstm_cell_backward(int B, int t, REAL *g, REAL *c, REAL *tc, REAL *dhs, REAL *dh, REAL *dc, REAL *da, int N,
                            int H, long long s) {{
    launch(B, t, [=] {{ lstm_cell_backward(g, c, tc, dhs, dh, dc, da, N, H, s); }}); }}
void run_lstm_all_steps(int B, int t, REAL *g, REAL *Wh, REAL *b, REAL *h0, REAL *c0, REAL *h, REAL *c, REAL *tc, int T,
                        int N, int H) {{
    launch(B, t, [=] {{ lstm_all_steps(g, Wh, b, h0, c0, h, c, tc, T, N, H); }}); }}
void run_softmax_rows(int B, int t, REAL *s, int T) {{ launch(B, t, [=] {{ softmax_rows(s, T); }}); }}
void run_adam_step(int B, int t, REAL *p, REAL *g, REAL *m, REAL *v, REAL lr, REAL b1, REAL b2, long long n) {{
    launch(B, t, [=] {{ adam_step(p, g, m, v, lr, b1, b2, n); }}); }}
}}
"""


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("generation", ["sm_80", "sm_90"])
def test_they_compile(tmp_path: Path, generation: str, real: str) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    command = [nvcc, f"-arch={generation}", f"-DREAL={real}", "-Werror", "all-warnings", "-cubin", "-o"]
    done = subprocess.run([*command, str(tmp_path / "x"), str(KERNELS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["float", "double"])
def cpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The kernels as a library for the CPU, and the dtype that they are compiled for."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not on the PATH")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "all.cpp").write_text(LAUNCHERS.format(kernels=KERNELS))
    command = [compiler, "-std=c++20", "-O1", "-pthread", "-fPIC", "-shared", f"-I{HERE}", f"-DREAL={request.param}"]
    done = subprocess.run(
        [*command, "-o", str(folder / "all.so"), str(folder / "all.cpp")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "barrier" in done.stderr:
        pytest.skip("this g++ has no <barrier>")
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "all.so")), np.dtype({"float": "float32", "double": "float64"}[request.param])


@pytest.fixture
def both(cpu: tuple[Any, Any]) -> Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]:
    """Runs a kernel and its second version on copies of the same arguments; returns the arrays of both."""
    library, dtype = cpu
    sys.path.insert(0, str(HERE / "cupy"))
    try:
        import kernels as second  # the stand-in's, without the stand-in
    finally:
        sys.path.remove(str(HERE / "cupy"))

    def call(name: str, grid: tuple[int, int], *arguments: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        compiled = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
        plain = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
        real = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        kinds = {float: real, int: ctypes.c_int, np.int64: ctypes.c_longlong}
        passed = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray)
            else ctypes.c_void_p(None) if a is None else kinds[type(a)](a)
            for a in compiled
        ]  # fmt: skip
        getattr(library, f"run_{name}")(*grid, *passed)
        getattr(second, name)(*(0 if a is None else a for a in plain))
        return tuple([a for a in each if isinstance(a, np.ndarray)] for each in (compiled, plain))  # type: ignore

    return call


def check(pair: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    for compiled, plain in zip(*pair, strict=True):
        tolerance = 1e-5 if plain.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(compiled, plain, rtol=tolerance, atol=tolerance)


N, T, H = 3, 5, 7


def draw(cpu: tuple[Any, Any], *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(cpu[1])


def test_lstm_cell(cpu: Any, both: Any) -> None:
    arrays = [draw(cpu, *shape) for shape in ((N, 4 * H), (N, 4 * H), (4 * H,), *4 * [(N, H)])]
    check(both("lstm_cell", (2, 16), *arrays, N, H))


def test_lstm_cell_backward(cpu: Any, both: Any) -> None:
    gates = 1 / (1 + np.exp(-draw(cpu, N, 4 * H)))
    arrays = [draw(cpu, N, H), np.tanh(draw(cpu, N, H)), draw(cpu, N, H), draw(cpu, N, H), draw(cpu, N, H)]
    check(both("lstm_cell_backward", (2, 16), gates, *arrays, draw(cpu, N, 4 * H), N, H, np.int64(H)))


@pytest.mark.parametrize("first", [True, False])
def test_lstm_all_steps(cpu: Any, both: Any, first: bool) -> None:
    begin = [draw(cpu, N, H) if first else None, draw(cpu, N, H) * 2 if first else None]
    shapes = ((T + 1, N, H), (T + 1, N, H), (T, N, H))
    arrays = [draw(cpu, T, N, 4 * H), draw(cpu, H, 4 * H), draw(cpu, 4 * H), *begin, *(draw(cpu, *s) for s in shapes)]
    check(both("lstm_all_steps", (N, 16), *arrays, T, N, H))


@pytest.mark.parametrize("columns", [1, 5, 31, 70])
def test_softmax_rows(cpu: Any, both: Any, columns: int) -> None:
    scores = 30 * draw(cpu, 4, columns)
    scores[1] = -np.inf
    scores[2, 0] = -np.inf
    with np.errstate(all="ignore"):
        check(both("softmax_rows", (4, 32), scores, columns))
        scores[3, -1] = np.nan
        compiled, _ = both("softmax_rows", (4, 32), scores, columns)
    assert np.isnan(compiled[0][3]).all()


def test_adam_step(cpu: Any, both: Any) -> None:
    arrays = [draw(cpu, 50), draw(cpu, 50) * 2, draw(cpu, 50) * 3, np.abs(draw(cpu, 50))]
    check(both("adam_step", (4, 16), *arrays, 0.01, 0.9, 0.999, np.int64(50)))


def test_every_kernel_is_tested() -> None:
    declared = [
        line.split(" void ")[1].split("(")[0] for line in KERNELS.read_text().splitlines() if "__global__" in line
    ]
    assert all(f"run_{name}(" in LAUNCHERS for name in declared)
