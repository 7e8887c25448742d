"""A sum over time, weighted."""

import re

import numpy as np
import pytest
from support import Draw, Library, assert_as_exact_as

from attnlayers import functional as F
from attnlayers.bench.loops import BookWeightSum

N, T, H = 2, 5, 7


def test_by_hand(library: Library) -> None:
    values = library.array([[1.0, 2.0], [3.0, 4.0]])
    out, saved = F.weighted_sum(values, library.array([2.0, -1.0]))
    assert library.numpy(out).tolist() == [-1, 0]
    dvalues, dweights = F.weighted_sum_backward(saved, library.array([1.0, 10.0]))
    assert library.numpy(dvalues).tolist() == [[2, 20], [-1, -10]]
    assert library.numpy(dweights).tolist() == [21, 43]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_book(library: Library, dtype: str) -> None:
    draw = Draw(library, dtype)
    given = draw(N, T, H), draw(N, T), draw(N, H)
    out, saved = F.weighted_sum(*given[:2])
    found = [out, *F.weighted_sum_backward(saved, given[2])]

    def by_book(kind: type) -> list[np.ndarray]:
        values, weights, dout = (library.numpy(x).astype(kind) for x in given)
        book = BookWeightSum()
        return [book.forward(values, weights), *book.backward(dout)]

    for one, plain, exact in zip(found, by_book(getattr(np, dtype)), by_book(np.longdouble), strict=True):
        assert_as_exact_as(plain, library.numpy(one), exact)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize(("length", "width"), [(5, 7), (0, 7), (5, 0)])
def test_leading_axes_and_axes_of_length_0(library: Library, lead: tuple[int, ...], length: int, width: int) -> None:
    draw = Draw(library)
    values, weights, dout = draw(*lead, length, width), draw(*lead, length), draw(*lead, width)
    numpy_values, numpy_weights, numpy_dout = (library.numpy(x) for x in (values, weights, dout))
    out, saved = F.weighted_sum(values, weights)
    dvalues, dweights = F.weighted_sum_backward(saved, dout)
    np.testing.assert_allclose(library.numpy(out), (numpy_values * numpy_weights[..., None]).sum(axis=-2), atol=1e-14)
    np.testing.assert_allclose(library.numpy(dvalues), numpy_weights[..., None] * numpy_dout[..., None, :])
    expected = (numpy_values * numpy_dout[..., None, :]).sum(axis=-1)
    np.testing.assert_allclose(library.numpy(dweights), expected, atol=1e-14)


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        ((2, 5, 7), (2, 4), "`weights` must have shape (..., T) = (2, 5) to go with values (2, 5, 7), got (2, 4)"),
        ((2, 5, 7), (3, 5), "`weights` must have shape (..., T) = (2, 5) to go with values (2, 5, 7), got (3, 5)"),
        ((2, 5, 7), (5,), "`weights` must have shape (..., T) = (2, 5) to go with values (2, 5, 7), got (5,)"),
        ((5,), (5,), "`values` must have shape (..., T, H), got (5,)"),
    ],
)
def test_shapes_that_do_not_fit(
    library: Library, values: tuple[int, ...], weights: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.weighted_sum(library.array(np.zeros(values)), library.array(np.zeros(weights)))


def test_a_gradient_that_does_not_fit(library: Library) -> None:
    draw = Draw(library)
    _, saved = F.weighted_sum(draw(N, T, H), draw(N, T))
    with pytest.raises(ValueError, match=r"^`dout` must have shape \(\.\.\., H\) = \(2, 7\) to go with"):
        F.weighted_sum_backward(saved, draw(N, T))
