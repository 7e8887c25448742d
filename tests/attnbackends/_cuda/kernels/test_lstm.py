"""The LSTM's CUDA kernels: results against float64, and the launches that a call takes."""

from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends._cuda import lstm, lstm_grid
from attnbackends._cuda.lstm_grid import ROWS, UNITS, grid_for
from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(7)
T, D, H = 3, 5, 7
TOLERANCE = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}
TOGETHER = ["lstm_steps"], ["lstm_steps_backward"]
STEP_BY_STEP = T * ["lstm_cell"], (T + 1) * ["lstm_cell_backward"]


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def run(xp: Any, arrays: list[Any], mask: Any) -> list[Any]:
    x, Wx, Wh, b, h, c, dhs, dh, dc = arrays
    dhs = xp.flip(dhs, axis=1)  # as a reader from the end hands it on
    *forward, saved = F.lstm(x, Wx, Wh, b, h=h, c=c, mask=mask)
    return [*forward, *F.lstm_backward(saved, dhs, dh=dh, dc=dc)]


def agree(library: Library, dtype: str, N: int, steps: int, H: int, states: bool, masked: bool) -> None:
    """On arrays of these sizes, CuPy's results with NumPy's in float64."""
    four = [draw(N, H) if states else None for _ in range(4)]
    weights = [draw(D, 4 * H), draw(H, 4 * H) / np.sqrt(H / 7), draw(4 * H)]
    arrays = [draw(N, steps, D), *weights, *four[:2], draw(N, steps, H), *four[2:]]
    arrays = [None if array is None else array.astype(dtype).astype(float) for array in arrays]
    mask = RNG.random((N, steps)) < 2 / 3 if masked else None
    exact = run(np, arrays, mask)
    on_device = [None if array is None else library.array(array, dtype) for array in arrays]
    found = run(library.xp, on_device, None if mask is None else library.array(mask))
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype] * np.abs(other).max())


@pytest.fixture(params=["together", "step by step"])
def way(request: pytest.FixtureRequest, library: Library, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The launches of one call for T steps, each way in turn."""
    kernels = lstm.CudaLSTM(library.xp, library.backend.matmul, library.backend._kernels)
    monkeypatch.setattr(library.backend, "_lstm_kernels", kernels)
    if request.param == "together":
        return [*TOGETHER[0], *TOGETHER[1]]
    monkeypatch.setattr(lstm, "LEAST_CAPABILITY", 1000)
    return [*STEP_BY_STEP[0], *STEP_BY_STEP[1]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(("N", "masked"), [(2, False), (2, True), (9, True), (17, False)])
def test_against_float64(
    library: Library, launched: list[str], way: list[str], dtype: str, states: bool, N: int, masked: bool
) -> None:
    agree(library, dtype, N, T, H, states, masked)
    assert launched == way


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_blocks_and_tiles(
    library: Library, launched: list[str], monkeypatch: pytest.MonkeyPatch, rows: int, dtype: str
) -> None:
    """Groups of more entries than a block takes at a time, units that fill no last block."""
    monkeypatch.setattr(lstm_grid, "ROWS", (rows,))
    kernels = lstm.CudaLSTM(library.xp, library.backend.matmul, library.backend._kernels)
    monkeypatch.setattr(library.backend, "_lstm_kernels", kernels)
    monkeypatch.setattr(library.backend._kernels, "device_limits", lambda: (7, 90, True))
    agree(library, dtype, 2 * rows + 3, 4, 2 * UNITS + 3, states=True, masked=True)
    assert launched == ["lstm_steps", "lstm_steps_backward"]


def test_more_blocks_than_the_device_holds(library: Library, launched: list[str]) -> None:
    multiprocessors = library.backend._kernels.device_limits()[0]
    agree(library, "float32", 3, 2, UNITS * multiprocessors + 1, states=False, masked=False)
    assert launched == [*2 * ["lstm_cell"], *3 * ["lstm_cell_backward"]]


def test_one_step_waits_for_nobody(library: Library, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks it has: they need not be on the device at once."""
    kernels = lstm.CudaLSTM(library.xp, library.backend.matmul, library.backend._kernels)
    monkeypatch.setattr(library.backend, "_lstm_kernels", kernels)
    monkeypatch.setattr(library.backend._kernels, "device_limits", lambda: (2, 90, True))
    agree(library, "float32", 5, 1, 3 * UNITS, states=True, masked=True)
    assert launched == ["lstm_steps", *2 * ["lstm_cell_backward"]]


def test_a_first_state_that_is_not_aligned(library: Library) -> None:
    N, H = 3, 8
    flat = library.array(draw(2 * N * H + 1), "float32")
    h, c = (flat[1 + i * N * H :][: N * H].reshape(N, H) for i in range(2))
    rest = [library.array(draw(*shape), "float32") for shape in [(N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,)]]
    one, *_ = F.lstm(*rest, h=h, c=c)
    other, *_ = F.lstm(*rest, h=h.copy(), c=c.copy())
    np.testing.assert_array_equal(library.numpy(one), library.numpy(other))


@pytest.mark.parametrize(("N", "steps"), [(0, T), (2, 0)])
def test_of_nothing_there_is_no_launch(library: Library, launched: list[str], N: int, steps: int) -> None:
    arrays = [draw(N, steps, D), draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), None, None, draw(N, steps, H), None, None]
    expected = run(np, [None if array is None else array.astype("float32") for array in arrays], None)
    found = run(library.xp, [None if array is None else library.array(array, "float32") for array in arrays], None)
    assert launched == []
    for one, other in zip(map(library.numpy, found), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backward", [False, True])
def test_the_grid_fills_the_device(library: Library, backward: bool) -> None:
    """An H100, an A100 and a T4; None where a block cannot have what it needs, or there would be too many."""
    kilobyte = 1024

    def blocks(N: int, H: int, itemsize: int, multiprocessors: int, limit: int) -> tuple[int, ...] | None:
        grid = grid_for(N, H, itemsize, backward, multiprocessors, limit * kilobyte, waits=True)
        return None if grid is None else (grid.slices, grid.groups, grid.tiles, grid.rows)

    assert blocks(128, 256, 4, 132, 227) == (32, 4, 1, 32)
    assert blocks(20, 650, 4, 132, 227) == (82, 1, 1, 24)
    assert blocks(1, 256, 4, 132, 227) == (32, 1, 1, 8)
    assert blocks(128, 256, 4, 108, 163) == (32, 3, 2, 24)
    assert blocks(20, 2048, 4, 132, 227) is None
    grid = grid_for(1, 2048, 4, backward, 132, 512 * kilobyte, waits=False)
    assert grid is not None
    assert grid.blocks == 256
