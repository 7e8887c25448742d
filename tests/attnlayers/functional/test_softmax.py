"""Softmax over the last axis."""

import re
from math import log

import numpy as np
import pytest
from support import Draw, Library, assert_as_exact_as

from attnlayers import functional as F
from attnlayers.functional.arrays import softmax_vjp

RNG = np.random.default_rng(0)
INF, NAN = np.inf, np.nan


def plain(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_by_hand(library: Library) -> None:
    out, saved = F.softmax(library.array([[0.0, log(2), log(5)]]))
    assert library.numpy(out) == pytest.approx(np.array([[1, 2, 5]]) / 8)
    # dout . out = 8 / 8 = 1, so dx = out * (dout - 1)
    dx = F.softmax_backward(saved, library.array([[8.0, 0.0, 0.0]]))
    assert library.numpy(dx) == pytest.approx(np.array([[7 / 8, -2 / 8, -5 / 8]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 5, 7), (1009, 211), (3, 100003)])
def test_against_float64(library: Library, shape: tuple[int, ...], dtype: str) -> None:
    draw = Draw(library, dtype)
    x, dout = draw(*shape), draw(*shape)
    numpy_x, numpy_dout = (library.numpy(a) for a in (x, dout))
    wide = np.longdouble if dtype == "float64" else np.float64
    out, saved = F.softmax(x)
    exact, by_numpy = plain(numpy_x.astype(wide)), plain(numpy_x)
    assert_as_exact_as(by_numpy, library.numpy(out), exact)
    exact_dx, plain_dx = (
        w * (d - (w * d).sum(axis=-1, keepdims=True))
        for w, d in ((exact, numpy_dout.astype(wide)), (by_numpy, numpy_dout))
    )
    assert_as_exact_as(plain_dx, library.numpy(F.softmax_backward(saved, dout)), exact_dx, factor=8)


def test_large_scores(library: Library) -> None:
    out, saved = F.softmax(library.array([[1e4, 1e4], [-1e4, -1e4], [1e4, -1e4], [0.0, -INF]]))
    assert library.numpy(out).tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]]
    dx = library.numpy(F.softmax_backward(saved, library.array([[1.0, -1.0]] * 4)))
    assert dx.tolist() == [[0.5, -0.5], [0.5, -0.5], [0, 0], [0, 0]]


def test_rows_of_nothing_give_0(library: Library) -> None:
    out, saved = F.softmax(library.array([[-INF, -INF], [1.0, 1.0]]))
    assert library.numpy(out).tolist() == [[0, 0], [0.5, 0.5]]
    assert library.numpy(F.softmax_backward(saved, library.array([[1.0, 2.0], [1.0, 1.0]]))).tolist() == [[0, 0]] * 2


@pytest.mark.parametrize("bad", [NAN, INF])
def test_nan_and_infinity_stay_in_their_rows(library: Library, bad: float) -> None:
    out, saved = F.softmax(library.array([[0.0, 0.0], [bad, 0.0]]))
    assert library.numpy(out)[0].tolist() == [0.5, 0.5]
    assert np.isnan(library.numpy(out)[1]).any()
    dx = F.softmax_backward(saved, library.array([[1.0, 0.0], [1.0, 0.0]]))
    assert library.numpy(dx)[0].tolist() == [0.25, -0.25]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
def test_of_nothing(library: Library, shape: tuple[int, ...]) -> None:
    empty = library.array(np.zeros(shape))
    out, saved = F.softmax(empty)
    assert tuple(out.shape) == tuple(F.softmax_backward(saved, empty).shape) == shape


def test_the_gradient_of_scores_takes_the_place_of_that_of_weights(library: Library) -> None:
    weights, dweights = plain(RNG.standard_normal((2, 3, 5))), RNG.standard_normal((2, 3, 5))
    given = Library(library.backend).array(dweights)  # written to, where the library's arrays are read-only, too
    out = softmax_vjp(library.backend, library.array(weights), given)
    assert out is given
    jacobian = weights[..., :, None] * (np.eye(5) - weights[..., None, :])
    np.testing.assert_allclose(library.numpy(out), np.einsum("...ij,...j->...i", jacobian, dweights), atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 5), (0,)])
def test_the_gradient_of_no_scores(library: Library, shape: tuple[int, ...]) -> None:
    empty = Library(library.backend).array(np.zeros(shape))
    assert softmax_vjp(library.backend, empty, empty) is empty


def test_bad_input(library: Library) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('`x` must have shape (..., T), got ()')}$"):
        F.softmax(library.array(1.0))
    with pytest.raises(TypeError, match=r"^`x` must be floating point, got .*int64: convert it with xp.astype$"):
        F.softmax(library.array([1, 2]))
    _, saved = F.softmax(library.array(np.zeros((2, 3))))
    message = "`dout` must have shape (..., T) = (2, 3) to go with out (2, 3), got (3, 2)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.softmax_backward(saved, library.array(np.zeros((3, 2))))
