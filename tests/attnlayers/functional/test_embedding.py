"""Rows of a table, by id."""

import re

import numpy as np
import pytest
from support import Draw, Library

from attnlayers import functional as F


def test_by_hand(library: Library) -> None:
    W = library.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    out, saved = F.embedding(W, library.array([2, 0, 2]))
    assert library.numpy(out).tolist() == [[5, 6], [1, 2], [5, 6]]
    dW = F.embedding_backward(saved, library.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]))
    assert library.numpy(dW).tolist() == [[3, 4], [0, 0], [11, 22]]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((), "int64"), ((7,), "int64"), ((2, 5), "int32"), ((2, 3, 5), "int64"), ((2, 5), "int8"), ((2, 5), "uint8")],
)
def test_against_a_loop(library: Library, shape: tuple[int, ...], kind: str) -> None:
    V, D = 101, 211
    rng = np.random.default_rng(0)
    W, ids, dout = rng.standard_normal((V, D)), rng.integers(V, size=shape), rng.standard_normal((*shape, D))
    out, saved = F.embedding(library.array(W), library.array(ids, kind))
    assert np.array_equal(library.numpy(out), W[ids])
    expected = np.zeros((V, D))
    for i, row in zip(ids.reshape(-1), dout.reshape(-1, D), strict=True):
        expected[i] += row
    dW = F.embedding_backward(saved, library.array(dout))
    np.testing.assert_allclose(library.numpy(dW), expected, atol=1e-13)


def test_a_place_for_the_gradient_is_overwritten(library: Library) -> None:
    draw = Draw(library)
    _, saved = F.embedding(draw(5, 3), library.array([4, 4, 1]))
    dout = draw(3, 3)
    place = library.xp.full((5, 3), np.nan, dtype=library.xp.float64)
    for _ in range(2):
        assert F.embedding_backward(saved, dout, out=place) is place
        np.testing.assert_allclose(library.numpy(place), library.numpy(F.embedding_backward(saved, dout)))


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_of_no_ids(library: Library, shape: tuple[int, ...]) -> None:
    draw = Draw(library)
    out, saved = F.embedding(draw(5, 3), library.array(np.zeros(shape), "int64"))
    assert tuple(out.shape) == (*shape, 3)
    assert (library.numpy(F.embedding_backward(saved, out)) == 0).all()


def test_nan_stays_in_its_row(library: Library) -> None:
    draw = Draw(library)
    out, saved = F.embedding(library.array([[np.nan, 1.0], [2.0, 3.0]]), library.array([0, 1]))
    np.testing.assert_array_equal(library.numpy(out), [[np.nan, 1], [2, 3]])
    assert draw.dtype == "float64"
    dW = F.embedding_backward(saved, library.array([[1.0, np.nan], [1.0, 1.0]]))
    np.testing.assert_array_equal(library.numpy(dW), [[1, np.nan], [1, 1]])


@pytest.mark.parametrize(("ids", "outside"), [([0, 5], 5), ([-1, 2], -1), ([-7, 9], -7), ([[3, 4], [5, 6]], 6)])
def test_ids_outside_the_table(library: Library, ids: list[int], outside: int) -> None:
    told = outside if library.backend.on_host else "-?[0-9]+"  # a device tells of any of them
    with pytest.raises(IndexError, match=rf"^`ids` must lie in 0 \.\. 4, got {told}: give W a row for each id, or"):
        library.wait(F.embedding(Draw(library)(5, 3), library.array(ids)))


def test_bad_input(library: Library) -> None:
    draw = Draw(library)
    with pytest.raises(TypeError, match=r"^`ids` must be integers, got .*float64: convert it with xp.astype$"):
        F.embedding(draw(5, 3), draw(2))
    with pytest.raises(TypeError, match=r"^`ids` must be integers, got .*bool: convert it with xp.astype$"):
        F.embedding(draw(5, 3), draw.mask(2))
    with pytest.raises(ValueError, match=f"^{re.escape('`W` must have shape (V, D), got (5,)')}$"):
        F.embedding(draw(5), library.array([0]))
    _, saved = F.embedding(draw(5, 3), library.array([0, 1]))
    message = "`dout` must have the shape of the output, (2, 3), got (3, 3)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.embedding_backward(saved, draw(3, 3))
