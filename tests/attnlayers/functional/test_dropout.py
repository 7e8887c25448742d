"""Dropout."""

import re

import numpy as np
import pytest
from support import Draw, Library

from attnbackends import Uniform
from attnlayers import functional as F


def test_by_hand(library: Library) -> None:
    def draw(shape: tuple[int, ...], like: object) -> object:
        assert shape == (2, 2)
        return library.array([[0.1, 0.2], [0.0, 0.75]], "float32")

    out, saved = F.dropout(library.array([[1.0, 2.0], [3.0, 4.0]]), 0.2, draw)
    assert library.numpy(out) == pytest.approx(np.array([[0, 2.5], [0, 5]]), rel=1e-6)
    dx = F.dropout_backward(saved, library.array([[10.0, 10.0], [10.0, 10.0]]))
    assert library.numpy(dx) == pytest.approx(np.array([[0, 12.5], [0, 12.5]]), rel=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_share_is_dropped_and_the_mean_stays(library: Library, dtype: str, ratio: float) -> None:
    x = library.array(np.ones((307, 211)), dtype)
    out, _ = F.dropout(x, ratio, Uniform(library.backend, 3))
    assert out.dtype == x.dtype
    values = library.numpy(out)
    kept = values != 0
    assert kept.mean() == pytest.approx(1 - ratio, abs=0.01)
    np.testing.assert_allclose(values[kept], 1 / (1 - ratio), rtol=1e-6)
    assert values.mean() == pytest.approx(1, abs=0.1 if ratio == 0.9 else 0.01)


def test_the_seed_decides(library: Library) -> None:
    x = Draw(library)(13, 11)
    first, again, other = (library.numpy(F.dropout(x, 0.5, Uniform(library.backend, s))[0]) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_any_shape(library: Library, shape: tuple[int, ...]) -> None:
    x = Draw(library)(*shape)
    out, saved = F.dropout(x, 0.5, Uniform(library.backend, 0))
    assert tuple(out.shape) == tuple(F.dropout_backward(saved, out).shape) == shape


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan")])
def test_a_ratio_out_of_range(library: Library, ratio: float) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'`dropout` must lie in [0, 1), got {ratio}')}$"):
        F.dropout(Draw(library)(2, 3), ratio, Uniform(library.backend, 0))


def test_bad_input(library: Library) -> None:
    draw = Draw(library)
    with pytest.raises(TypeError, match=r"^`x` must be floating point, got .*int64: convert it with xp.astype$"):
        F.dropout(library.array([1, 2]), 0.5, Uniform(library.backend, 0))
    _, saved = F.dropout(draw(2, 3), 0.5, Uniform(library.backend, 0))
    with pytest.raises(ValueError, match=r"^`dout` must have shape .*, got \(3, 2\)$"):
        F.dropout_backward(saved, draw(3, 2))
