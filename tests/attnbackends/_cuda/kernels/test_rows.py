"""CUDA kernels over rows: softmax, sums, sums by index, random numbers; results against float64, and the launches."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import _random
from attnbackends._cuda import rows as rows_module

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(3)

drawn = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
dtypes = st.sampled_from(["float16", "float32", "float64"])
seeds = st.integers(0, 2**32 - 1)


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


@drawn
@given(
    rows=st.sampled_from([0, 1, 2, 63, 64, 65, 300]),
    columns=st.sampled_from([1, 15, 16, 17, 40]),
    dtype=st.sampled_from(["float32", "float64"]),
    turned=st.booleans(),
    seed=seeds,
)
def test_sum_rows(
    library: Library, launched: list[str], rows: int, columns: int, dtype: str, turned: bool, seed: int
) -> None:
    shape = (columns, rows) if turned else (rows, columns)
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    own = library.array(x)
    launched.clear()
    found = library.numpy(library.backend.sum_rows(own.T if turned else own))
    assert launched == ["sum_rows"]
    wide = (x.T if turned else x).astype(np.longdouble)
    assert found.dtype == dtype
    assert np.all(np.abs(found - wide.sum(axis=0)) <= 8 * np.finfo(found.dtype).eps * np.abs(wide).sum(axis=0))


@drawn
@given(
    V=st.sampled_from([1, 3, 40, 700]),
    M=st.sampled_from([0, 1, 2, 33, 257, 1025, 2100]),
    tail=st.sampled_from([(), (1,), (3,), (32,), (5, 7), (129,), (1100,)]),
    most_ids=st.sampled_from([50, 16384]),
    often=st.booleans(),
    anew=st.booleans(),
    dtype=dtypes,
    seed=seeds,
)
def test_scatter_add(
    library: Library,
    launched: list[str],
    V: int,
    M: int,
    tail: tuple[int, ...],
    most_ids: int,
    often: bool,
    anew: bool,
    dtype: str,
    seed: int,
) -> None:
    """Of ids that all occur, or one of which occurs in half of all places, as padding does."""
    rng = np.random.default_rng(seed)
    M = min(M, 300) if tail == (1100,) or V == 700 else M  # a thread of a kernel takes its turn on the CPU
    ids = np.where(often & (rng.random(M) < 0.5), V // 2, rng.integers(0, V, M))
    target, values = (rng.standard_normal((rows, *tail)).astype(dtype) for rows in (V, M))
    own, given_ids, given_values = library.array(target), library.array(ids), library.array(values)
    launched.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "MOST_IDS", most_ids)
        library.backend.scatter_add(own, given_ids, given_values, anew)
    launches = 1 if min(M, most_ids) >= V else -(-M // most_ids)
    assert launched == launches * ["scatter_add"]
    exact, size = target.astype(np.longdouble) * (not anew), np.abs(target).astype(float) * (not anew)
    np.add.at(exact, ids, values.astype(np.longdouble))
    np.add.at(size, ids, np.abs(values).astype(float))
    wide = float(np.finfo(np.promote_types(dtype, np.float32)).eps)
    allowed = 30 * wide * size + (2**-10 * np.abs(exact) if dtype == "float16" else 0)
    assert np.all(np.abs(library.numpy(own) - exact) <= allowed)


@pytest.mark.parametrize("V", [5, 400])
def test_scatter_add_of_nan_and_of_ids_outside(library: Library, V: int) -> None:
    """Ids outside are reported by those who check them: no row is changed for them, and nothing else is touched."""
    target = library.array(np.ones((V, 2)), "float32")
    ids, values = library.array([4, V, -1, 2, 4, 1]), library.array(np.arange(12.0).reshape(6, 2), "float32")
    values[3, 0] = np.nan
    library.backend.scatter_add(target, ids, values, anew=True)
    expected = np.zeros((V, 2))
    expected[[1, 2, 4]] = [10, 11], [np.nan, 7], [8, 10]
    np.testing.assert_array_equal(library.numpy(target), expected)
