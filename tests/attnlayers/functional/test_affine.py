"""Affine maps."""

import re

import numpy as np
import pytest
from support import Draw, Library, assert_as_exact_as

from attnlayers import functional as F


def test_by_hand(library: Library) -> None:
    x, W, b = (library.array(a) for a in ([[1.0, 2.0]], [[1.0, 0.0, 3.0], [0.0, 1.0, -1.0]], [10.0, 20.0, 30.0]))
    out, saved = F.affine(x, W, b)
    assert library.numpy(out).tolist() == [[11, 22, 31]]
    dx, dW, db = (library.numpy(d) for d in F.affine_backward(saved, library.array([[1.0, 2.0, 3.0]])))
    assert dx.tolist() == [[10, -1]]
    assert dW.tolist() == [[1, 2, 3], [2, 4, 6]]
    assert db.tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 3, 5), (307,)])
def test_against_numpy(library: Library, lead: tuple[int, ...], dtype: str) -> None:
    D, H = 211, 307
    draw = Draw(library, dtype)
    given = draw(*lead, D), draw(D, H), draw(H), draw(*lead, H)
    out, saved = F.affine(*given[:3])
    found = [out, *F.affine_backward(saved, given[3])]

    def by_numpy(kind: type) -> list[np.ndarray]:
        x, W, b, dout = (library.numpy(a).astype(kind) for a in given)
        rows, drows = x.reshape(-1, D), dout.reshape(-1, H)
        return [(rows @ W + b).reshape(dout.shape), (drows @ W.T).reshape(x.shape), rows.T @ drows, drows.sum(axis=0)]

    for one, plain, exact in zip(found, by_numpy(getattr(np, dtype)), by_numpy(np.longdouble), strict=True):
        assert_as_exact_as(plain, library.numpy(one), exact, factor=16)  # each BLAS sums in its own order


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_of_no_rows(library: Library, shape: tuple[int, ...]) -> None:
    draw = Draw(library)
    out, saved = F.affine(draw(*shape), draw(3, 5), draw(5))
    assert tuple(out.shape) == (*shape[:-1], 5)
    dx, dW, db = F.affine_backward(saved, out)
    assert tuple(dx.shape) == shape
    assert (library.numpy(dW) == 0).all()
    assert (library.numpy(db) == 0).all()


def test_of_no_columns(library: Library) -> None:
    draw = Draw(library)
    out, saved = F.affine(draw(2, 0), draw(0, 3), library.array([1.0, 2.0, 3.0]))
    assert library.numpy(out).tolist() == [[1, 2, 3]] * 2
    dx, dW, db = F.affine_backward(saved, draw(2, 3))
    assert [tuple(d.shape) for d in (dx, dW, db)] == [(2, 0), (0, 3), (3,)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_rows(library: Library, bad: float) -> None:
    draw = Draw(library)
    W, b, x = draw(3, 5), draw(5), np.ones((4, 3))
    x[2, 1] = bad
    out, saved = F.affine(library.array(x), W, b)
    rows = library.numpy(out)
    assert np.isfinite(rows[[0, 1, 3]]).all()
    assert not np.isfinite(rows[2]).any()
    dx, _, _ = F.affine_backward(saved, library.array(x[:, :1] + np.zeros(5)))
    assert np.isfinite(library.numpy(dx)).all()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (5, 3), (3,)), "`W` must have shape (D, H) = (4, H) to go with x (2, 4), got (5, 3)"),
        (((2, 5), (5, 3), (4,)), "`b` must have shape (H,) = (3,) to go with W (5, 3), got (4,)"),
        (((2, 5), (5,), (3,)), "`W` must have shape (D, H) = (5, H) to go with x (2, 5), got (5,)"),
        (((), (5, 3), (3,)), "`x` must have shape (*, D), got ()"),
    ],
)
def test_shapes_that_do_not_fit(library: Library, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.affine(*(library.array(np.zeros(shape)) for shape in shapes))


def test_a_gradient_that_does_not_fit(library: Library) -> None:
    draw = Draw(library)
    _, saved = F.affine(draw(2, 5), draw(5, 3), draw(3))
    message = "`dout` must have shape (..., H) = (2, 3) to go with x (2, 5), W (5, 3), got (2, 5)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.affine_backward(saved, draw(2, 5))
