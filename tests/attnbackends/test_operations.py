"""Each operation of a backend against NumPy, on every library."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import Uniform, get_backend

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((2, 3, 5))
INF = np.inf


def softmax(scores: np.ndarray, mask: Any = True) -> np.ndarray:
    """By the definition, row by row."""
    kept = np.where(np.broadcast_to(mask, scores.shape), np.exp(scores - scores.max()), 0)
    total = kept.sum(axis=-1, keepdims=True)
    return np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)


def writable(library: Library, values: Any) -> Any:
    """Operations work in place: what they overwrite must be writable in read-only NumPy, too."""
    return Library(library.backend).array(values)


def test_arrays_go_in_and_out(library: Library) -> None:
    backend, values = library.backend, np.array([[1.5, -2.0], [0.0, 3.25]], dtype=np.float32)
    for data in (values, values.tolist(), library.array(values)):
        array = backend.asarray(data, dtype=library.xp.float32)
        assert array.dtype == library.xp.float32
        assert np.array_equal(library.numpy(array), values)
    assert library.numpy(backend.asarray(values)).dtype == np.float32
    assert library.numpy(backend.asarray([1, 2])).dtype == np.int64


def test_empty_follows_its_example(library: Library) -> None:
    backend, like = library.backend, library.array([1.0], "float32")
    made = backend.empty((2, 0, 3), like=like)
    assert (tuple(made.shape), made.dtype) == ((2, 0, 3), library.xp.float32)
    assert made.device == like.device
    assert backend.empty((1,), like=like, dtype=library.xp.float64).dtype == library.xp.float64


@pytest.mark.parametrize(
    "mask",
    [
        None,
        np.ones((2, 3, 5), dtype=bool),
        np.arange(5) < 3,
        np.array([[[True] * 5], [[True] * 2 + [False] * 3]]),
        np.array([[True], [False], [True]]),
        RNG.random((2, 3, 5)) < 0.4,
        np.zeros((2, 3, 5), dtype=bool),
    ],
)
def test_softmax_in_place(library: Library, mask: np.ndarray | None) -> None:
    scores = writable(library, SCORES)
    out = library.backend.softmax(scores, None if mask is None else library.array(mask))
    assert out is scores
    expected = softmax(SCORES) if mask is None else softmax(SCORES, mask)
    np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-14, atol=0)


def test_softmax_of_large_scores_and_of_rows_with_nothing_to_attend_to(library: Library) -> None:
    rows = np.array([[1e4, 1e4], [-1e4, -1e4], [1e4, -1e4], [-INF, 3.0], [-INF, -INF]])
    out = library.numpy(library.backend.softmax(writable(library, rows)))
    assert out.tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0], [0, 1], [0, 0]]


def test_softmax_passes_nan_and_infinity_on_in_their_rows_alone(library: Library) -> None:
    rows = np.array([[0.0, 0.0], [np.nan, 1.0], [INF, 1.0], [0.0, 0.0]])
    out = library.numpy(library.backend.softmax(writable(library, rows)))
    assert np.isnan(out[1:3]).any(axis=1).all()
    assert out[[0, 3]].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_softmax_does_not_look_where_the_mask_says_not_to(library: Library) -> None:
    scores = writable(library, [[np.nan, 1.0, 1.0], [INF, np.nan, -INF]])
    mask = library.array([[False, True, True], [False, False, False]])
    assert library.numpy(library.backend.softmax(scores, mask)).tolist() == [[0, 0.5, 0.5], [0, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 5), (0,)])
def test_softmax_of_nothing(library: Library, shape: tuple[int, ...]) -> None:
    empty = writable(library, np.zeros(shape))
    assert library.backend.softmax(empty, library.array(np.ones(shape, dtype=bool))) is empty


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple),
    dtypes=st.tuples(*[st.sampled_from(["float16", "float32", "float64"])] * 2),
    reverse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_vecdot(library: Library, shape: tuple[int, ...], dtypes: tuple[str, str], reverse: bool, seed: int) -> None:
    dtypes = tuple(dtype if hasattr(library.xp, dtype) else "float32" for dtype in dtypes)
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(dtype) for dtype in dtypes)
    own = [library.array(x) for x in (a, b)]
    if reverse:  # axes in another order than they lie in memory
        a, b = a.T, b.T
        own = [library.xp.permute_dims(x, tuple(reversed(range(len(shape))))) for x in own]
    out = library.numpy(library.backend.vecdot(*own))
    assert out.dtype == np.result_type(np.float32, *dtypes)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    size = np.sum(np.abs(wide * other), axis=-1)
    allowed = 2 * (1 + a.shape[-1]) * float(np.finfo(out.dtype).eps) * size
    assert np.all(np.abs(out - np.sum(wide * other, axis=-1)) <= allowed)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(0, 7)] * 4),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    result=st.sampled_from(["as it comes", "out", "dtype"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_matmul_sums_in_float32_or_better(
    library: Library, shape: tuple[int, ...], dtype: str, result: str, seed: int
) -> None:
    dtype = dtype if hasattr(library.xp, dtype) else "float32"
    B, M, K, N = shape
    rng, backend = np.random.default_rng(seed), library.backend
    a, b = (rng.standard_normal(size).astype(dtype) for size in ((B, M, K), (K, N)))
    own_a, own_b = library.array(a), library.array(b)
    if result == "out":
        own = writable(library, np.full((B, M, N), np.nan, dtype))
        assert backend.matmul(own_a, own_b, out=own) is own
    else:
        own = backend.matmul(own_a, own_b, dtype=None if result == "as it comes" else own_a.dtype)
    found = library.numpy(own)
    assert found.dtype == (np.result_type(np.float32, dtype) if result == "as it comes" else dtype)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    size, summed = np.abs(wide) @ np.abs(other), np.finfo(np.result_type(np.float32, dtype))
    rounding = np.finfo(found.dtype)
    exact = wide @ other
    allowed = 2 * (1 + K) * float(summed.eps) * size + float(rounding.eps) * np.abs(exact) + float(rounding.tiny)
    assert np.all(np.abs(found - exact) <= allowed)


@pytest.mark.parametrize("tail", [(), (7,), (2, 3), (0,)])
@pytest.mark.parametrize("ids", [[3, 1, 3, 3, 0], [], [4] * 9])
def test_scatter_add_counts_every_occurrence(library: Library, ids: list[int], tail: tuple[int, ...]) -> None:
    start, values = RNG.standard_normal((5, *tail)), RNG.standard_normal((len(ids), *tail))
    expected = start.copy()
    for i, value in zip(ids, values, strict=True):
        expected[i] += value
    target = writable(library, start)
    library.backend.scatter_add(target, library.array(ids, "int64"), library.array(values))
    np.testing.assert_allclose(library.numpy(target), expected, atol=1e-14)


@pytest.mark.parametrize("axis", ["transposed", "every other row", "every other column"])
def test_scatter_add_into_a_view(library: Library, axis: str) -> None:
    base = writable(library, np.zeros((6, 6)))
    view = {"transposed": base.T, "every other row": base[::2, :], "every other column": base[:, ::2]}[axis]
    rows, columns = view.shape
    library.backend.scatter_add(view, library.array([1, 2, 1]), library.array(np.ones((3, columns))))
    assert library.numpy(view).tolist() == [[(0, 2, 1, 0, 0, 0)[row]] * columns for row in range(rows)]
    assert float(library.numpy(base).sum()) == 3 * columns


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64"])
def test_scatter_add_takes_ids_of_every_width(library: Library, kind: str) -> None:
    target = writable(library, np.zeros((120, 200)))
    library.backend.scatter_add(target, library.array([119, 3, 119], kind), library.array(np.ones((3, 200))))
    rows = library.numpy(target)
    assert (rows[119] == 2).all()
    assert (rows[3] == 1).all()
    assert rows.sum() == 600


def test_scatter_add_keeps_nan_and_infinity_in_their_rows(library: Library) -> None:
    target = writable(library, np.zeros((3, 2)))
    values = library.array([[np.nan, 1.0], [1.0, INF], [1.0, 1.0]])
    library.backend.scatter_add(target, library.array([2, 2, 0]), values)
    np.testing.assert_array_equal(library.numpy(target), [[1, 1], [0, 0], [np.nan, INF]])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["float32", "float64"]),
    betas=st.tuples(st.floats(0, 0.9999), st.floats(0, 0.99999)),
    seed=st.integers(0, 2**32 - 1),
)
def test_adam_step_to_the_last_places(library: Library, dtype: str, betas: tuple[float, float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    param, grad = (rng.standard_normal(5).astype(dtype) for _ in range(2))
    arrays = [writable(library, x) for x in (param, grad, np.zeros_like(grad), np.zeros_like(grad))]
    library.backend.adam_step(*([array] for array in arrays), 0.01, *betas)
    wide = grad.astype(np.longdouble)
    m, v = (1 - np.longdouble(betas[0])) * wide, (1 - np.longdouble(betas[1])) * wide**2
    exact = param - np.longdouble(0.01) * m / (np.sqrt(v) + np.longdouble(1e-7))
    places = 8 * float(np.finfo(dtype).eps)
    moved, _, own_m, own_v = (library.numpy(x) for x in arrays)
    for found, expected in ((own_m, m), (own_v, v)):
        assert np.all(np.abs(found - expected) <= places * np.abs(expected))
    assert np.all(np.abs(moved - exact) <= places * (np.abs(param) + np.abs(exact - param)))


def test_apply_in_place(library: Library) -> None:
    array = writable(library, SCORES)
    assert library.backend.apply(library.xp.exp, array[0, ...]) is not None
    np.testing.assert_allclose(library.numpy(array)[0], np.exp(SCORES[0]), rtol=1e-15)
    assert np.array_equal(library.numpy(array)[1], SCORES[1])


def test_generator_is_seeded_and_uniform(library: Library) -> None:
    first, again, other = (Uniform(library.backend, seed) for seed in (7, 7, 8))
    drawn = library.numpy(first((40, 250)))
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.02
    assert np.array_equal(drawn, library.numpy(again((40, 250))))
    assert np.array_equal(library.numpy(first((3,))), library.numpy(again((3,))))
    assert not np.array_equal(drawn, library.numpy(other((40, 250))))


def test_map_calls_once_for_each_piece(library: Library) -> None:
    seen: list[int] = []
    library.backend.map(seen.append, range(50))
    assert sorted(seen) == list(range(50))
    library.backend.map(seen.append, [])
    assert len(seen) == 50
    library.backend.synchronize()


@settings(deadline=None)
@given(
    count=st.integers(0, 5000),
    bytes_each=st.integers(0, 2**34),
    at_least=st.integers(1, 300),
    name=st.sampled_from(["numpy", "array_api_strict"]),
)
def test_chunks_cover_the_range_exactly(count: int, bytes_each: int, at_least: int, name: str) -> None:
    pieces = get_backend(name).chunks(count, bytes_each, at_least)
    assert [i for piece in pieces for i in range(count)[piece]] == list(range(count))
    assert pieces == get_backend(name).chunks(count, bytes_each, at_least)
    if count:
        assert all(piece.stop > piece.start for piece in pieces)
        assert min(piece.stop - piece.start for piece in pieces) >= min(at_least, count)


def test_numpy_operations_give_no_warnings_from_threads() -> None:
    backend = get_backend("numpy")
    rows = [np.array(row) for row in [[np.nan, INF], [INF, INF], [-INF, -INF]] * 8]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend.map(backend.softmax, rows)
    assert caught == []
    assert rows[2].tolist() == [0, 0]
