"""CUDA kernels of a softmax and of random numbers: results against float64, and the launches that a call takes."""

import numpy as np
import pytest
from support import Library

from attnbackends import _random

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 5, 31, 70, 300])
def test_softmax_rows(library: Library, launched: list[str], dtype: str, columns: int) -> None:
    scores = (30 * RNG.standard_normal((5, columns))).astype(dtype)
    scores[1], scores[2, 0], scores[3, -1], scores[4, 0] = -np.inf, -np.inf, np.nan, 1e4
    found = library.numpy(library.backend.softmax(library.array(scores, dtype)))
    assert launched == ["softmax_rows"]
    assert found.dtype == dtype
    wide = scores.astype(np.longdouble)
    top = wide.max(axis=-1, keepdims=True)
    exact = np.exp(wide - np.where(np.isneginf(top), 0, top))
    total = exact.sum(axis=-1, keepdims=True)
    exact /= np.where(total == 0, 1, total)
    # A difference of scores that is rounded by half a unit changes its exponential by as much, relatively.
    finite = np.where(np.isfinite(scores), np.abs(scores.astype(float)), 0).max(axis=-1, keepdims=True)
    allowed = 4 * np.finfo(dtype).eps * (columns + finite) * exact + np.finfo(dtype).tiny
    rows = [0, 1, 2, 4]
    assert (np.abs(found - exact) <= allowed)[rows].all()
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("columns", [slice(3, 93), slice(0, 8), slice(64, 1000)])
def test_uniform(library: Library, launched: list[str], columns: slice) -> None:
    key, place, rows, length = 5 + 2**64, (slice(7, 9), slice(2, 5), columns), 61, 1003
    found = library.numpy(library.backend.uniform(key, place, rows, length))
    assert launched == ["uniform"]
    assert np.array_equal(found, _random.uniform(key, place, rows, length))
