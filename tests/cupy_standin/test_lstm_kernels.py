"""The LSTM's CUDA kernels on the CPU, thread by thread, launched by the code that launches them on a device."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from compiled_kernels import CpuKernels

from attnbackends import get_backend
from attnbackends._cuda_lstm import FEW_SEQUENCES, CudaLSTM
from attnlayers import functional as F

RNG = np.random.default_rng(7)
T, D, H = 3, 5, 7
ALL, CELL, BACK = "lstm_all_steps", "lstm_cell", "lstm_cell_backward"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    return CpuKernels(tmp_path_factory.mktemp("kernels"))


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def run(arrays: list[Any], mask: Any, dtype: str) -> list[np.ndarray]:
    x, Wx, Wh, b, h, c, dhs, dh, dc = (None if array is None else array.astype(dtype) for array in arrays)
    dhs = np.flip(dhs, axis=1)  # as a reader from the end hands it on
    *forward, saved = F.lstm(x, Wx, Wh, b, h=h, c=c, mask=mask)
    return [*forward, *F.lstm_backward(saved, dhs, dh=dh, dc=dc)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(
    ("N", "masked", "launched"),
    [(2, False, [ALL]), (2, True, T * [CELL]), (FEW_SEQUENCES + 1, False, T * [CELL])],
)
def test_against_float64(
    kernels: CpuKernels, dtype: str, states: bool, N: int, masked: bool, launched: list[str]
) -> None:
    four = [draw(N, H) if states else None for _ in range(4)]
    arrays = [draw(N, T, D), draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), *four[:2], draw(N, T, H), *four[2:]]
    arrays = [None if array is None else array.astype(dtype).astype(float) for array in arrays]
    mask = RNG.random((N, T)) < 2 / 3 if masked else None
    exact = run(arrays, mask, "float64")
    own, numpy = CudaLSTM(np, np.matmul, kernels.launch), get_backend("numpy")
    kernels.launched.clear()
    with patch.object(numpy, "lstm", own.forward), patch.object(numpy, "lstm_backward", own.backward):
        found = run(arrays, mask, dtype)
    assert kernels.launched == [*launched, *T * [BACK]]
    tolerance = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}[dtype]
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(("N", "steps", "width"), [(0, T, H), (2, 0, H)])
def test_of_nothing_there_is_no_launch(kernels: CpuKernels, N: int, steps: int, width: int) -> None:
    own, numpy = CudaLSTM(np, np.matmul, kernels.launch), get_backend("numpy")
    arrays = [draw(N, steps, D), draw(D, 4 * width), draw(width, 4 * width), draw(4 * width), None, None]
    arrays += [draw(N, steps, width), None, None]
    expected = run(arrays, None, "float32")
    kernels.launched.clear()
    with patch.object(numpy, "lstm", own.forward), patch.object(numpy, "lstm_backward", own.backward):
        found = run(arrays, None, "float32")
    assert kernels.launched == []
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
