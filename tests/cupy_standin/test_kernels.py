"""The CUDA kernels without a device: compiled for two generations, and run on the CPU, thread by thread."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_kernels import CpuKernels

from attnbackends._cuda_kernels import FILES, FOLDER, source

VARIANTS = {
    "steps.cu": ("REAL=float", "REAL=double"),
    "random.cu": ("REAL=float",),
    "attention_small.cu": ("REAL=float", "REAL=double"),
    "attention_tiled.cu": ("WIDTH=64", "WIDTH=128"),
    "attention_tiled_backward.cu": ("WIDTH=64", "WIDTH=128"),
}


@pytest.mark.parametrize(("file", "macro"), [(file, macro) for file in VARIANTS for macro in VARIANTS[file]])
@pytest.mark.parametrize("generation", ["sm_80", "sm_90"])
def test_they_compile(tmp_path: Path, generation: str, file: str, macro: str) -> None:
    """Without a warning, and with all that a thread holds in registers."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    (tmp_path / file).write_text(source(file))  # as it is compiled on a device, in one piece
    options = [f"-arch={generation}", f"-D{macro}", "-Werror", "all-warnings", "--ptxas-options=-v", "-cubin", "-o"]
    command = [nvcc, *options, str(tmp_path / "x"), str(tmp_path / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    spilled = re.findall(r"(\d+) bytes spill", done.stdout + done.stderr)
    assert len(spilled) == 2 * len(FILES[file])
    assert set(spilled) == {"0"}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    return CpuKernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return np.dtype(request.param)


N, T, H = 3, 5, 7


def draw(dtype: Any, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def test_lstm_cell(kernels: CpuKernels, dtype: Any) -> None:
    arrays = [draw(dtype, *shape) for shape in ((N, 4 * H), (N, 4 * H), (4 * H,), *4 * [(N, H)])]
    kernels.launch("lstm_cell", (2, 16), (*arrays, np.int32(N), np.int32(H)))


def test_lstm_cell_backward(kernels: CpuKernels, dtype: Any) -> None:
    gates = 1 / (1 + np.exp(-draw(dtype, N, 4 * H)))
    arrays = [
        draw(dtype, N, H),
        np.tanh(draw(dtype, N, H)),
        *(draw(dtype, N, H) for _ in range(3)),
        draw(dtype, N, 4 * H),
    ]
    kernels.launch("lstm_cell_backward", (2, 16), (gates, *arrays, np.int32(N), np.int32(H), np.int64(H)))


@pytest.mark.parametrize("first", [True, False])
def test_lstm_all_steps(kernels: CpuKernels, dtype: Any, first: bool) -> None:
    begin = [draw(dtype, N, H), draw(dtype, N, H) * 2] if first else 2 * [np.uintp(0)]
    shapes = ((T + 1, N, H), (T + 1, N, H), (T, N, H))
    arrays = [draw(dtype, T, N, 4 * H), draw(dtype, H, 4 * H), draw(dtype, 4 * H), *begin]
    sizes = map(np.int32, (T, N, H))
    kernels.launch("lstm_all_steps", (N, 16), (*arrays, *(draw(dtype, *s) for s in shapes), *sizes))


@pytest.mark.parametrize("columns", [1, 5, 31, 70])
def test_softmax_rows(kernels: CpuKernels, dtype: Any, columns: int) -> None:
    scores = 30 * draw(dtype, 4, columns)
    scores[1] = -np.inf
    scores[2, 0] = -np.inf
    scores[3, -1] = np.nan
    kernels.launch("softmax_rows", (4, 32), (scores, np.int32(columns)))
    assert np.isnan(scores[3]).all()


def test_adam_step(kernels: CpuKernels, dtype: Any) -> None:
    arrays = [draw(dtype, 50), draw(dtype, 50) * 2, draw(dtype, 50) * 3, np.abs(draw(dtype, 50))]
    kernels.launch("adam_step", (4, 16), (*arrays, *map(dtype.type, (0.01, 0.1, 0.001)), np.int64(50)))


def test_uniform(kernels: CpuKernels) -> None:
    out = np.empty((2, 3, 90), np.float32)
    numbers = (np.int64(5), np.int64(1), *map(np.int32, (*out.shape, 7, 2)), np.int64(61), np.int32(11))
    kernels.launch("uniform", (5, 16), (out, *numbers, np.int64(3), np.int32(64)))


def test_every_kernel_is_known() -> None:
    for path in FOLDER.glob("*.cu"):
        declared = re.findall(r"__global__ void\s(?:__launch_bounds__\(.*?\)\s+)?(\w+)\(", path.read_text())
        assert tuple(declared) == FILES[path.name]
    assert FILES.keys() == VARIANTS.keys()


RACE = """
extern "C" __global__ void race(REAL *x) {
    extern __shared__ unsigned char shared[];
    ((REAL *)shared)[threadIdx.x] = x[threadIdx.x];
    BARRIER;
    x[threadIdx.x] = ((REAL *)shared)[threadIdx.x ^ 1];
}
"""


@pytest.mark.parametrize("barrier", ["__syncthreads()", "if (threadIdx.x != 5) __syncthreads()", ""])
def test_a_missing_barrier_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barrier: str) -> None:
    import compiled_kernels

    (tmp_path / "race.cu").write_text(RACE)
    monkeypatch.setattr(compiled_kernels, "FOLDER", tmp_path)
    monkeypatch.setattr(compiled_kernels, "FILES", {"race.cu": ("race",)})
    monkeypatch.setattr(compiled_kernels, "second", lambda: None)
    kernels, x = CpuKernels(tmp_path), np.arange(64.0, dtype=np.float32)
    launch = lambda: kernels.launch("race", (1, 64), (x,), macros=f"#define BARRIER {barrier}\n")  # noqa: E731
    if barrier == "__syncthreads()":
        with pytest.raises(AttributeError, match="race"):  # past the checks: there is no second version
            launch()
        assert x.tolist() == (np.arange(64) ^ 1).tolist()
    else:
        with pytest.raises(AssertionError, match="depends on the order of its threads"):
            launch()
