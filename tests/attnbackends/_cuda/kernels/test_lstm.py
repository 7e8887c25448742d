"""The LSTM's CUDA kernels: results against float64, and the launches that a call takes."""

from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends._cuda.lstm import FEW_SEQUENCES
from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(7)
T, D, H = 3, 5, 7
ALL, CELL, BACK = "lstm_all_steps", "lstm_cell", "lstm_cell_backward"


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def run(xp: Any, arrays: list[Any], mask: Any) -> list[Any]:
    x, Wx, Wh, b, h, c, dhs, dh, dc = arrays
    dhs = xp.flip(dhs, axis=1)  # as a reader from the end hands it on
    *forward, saved = F.lstm(x, Wx, Wh, b, h=h, c=c, mask=mask)
    return [*forward, *F.lstm_backward(saved, dhs, dh=dh, dc=dc)]


def on(library: Library, arrays: list[Any], dtype: str) -> list[Any]:
    return [None if array is None else library.array(array, dtype) for array in arrays]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(
    ("N", "masked", "kernels"),
    [(2, False, [ALL]), (2, True, T * [CELL]), (FEW_SEQUENCES + 1, False, T * [CELL])],
)
def test_against_float64(
    library: Library, launched: list[str], dtype: str, states: bool, N: int, masked: bool, kernels: list[str]
) -> None:
    four = [draw(N, H) if states else None for _ in range(4)]
    arrays = [draw(N, T, D), draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), *four[:2], draw(N, T, H), *four[2:]]
    arrays = [None if array is None else array.astype(dtype).astype(float) for array in arrays]
    mask = RNG.random((N, T)) < 2 / 3 if masked else None
    exact = run(np, arrays, mask)
    found = run(library.xp, on(library, arrays, dtype), None if mask is None else library.array(mask))
    assert launched == [*kernels, *T * [BACK]]
    tolerance = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}[dtype]
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(("N", "steps"), [(0, T), (2, 0)])
def test_of_nothing_there_is_no_launch(library: Library, launched: list[str], N: int, steps: int) -> None:
    arrays = [draw(N, steps, D), draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), None, None, draw(N, steps, H), None, None]
    expected = run(np, [None if array is None else array.astype("float32") for array in arrays], None)
    found = run(library.xp, on(library, arrays, "float32"), None)
    assert launched == []
    for one, other in zip(map(library.numpy, found), expected, strict=True):
        np.testing.assert_array_equal(one, other)
