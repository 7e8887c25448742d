"""CUDA kernels of clipping and Adam: results against float64, for many arrays in as few launches as for one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends._cuda.optimizer import CHUNK, MOST_TABLES
from attnlayers.training import AdamW

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

CLIP, ADAM = ["sums_of_squares", "clip"], ["adam_step"]

drawn = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
sizes = st.lists(st.sampled_from([0, 1, 3, 255, 257, CHUNK, CHUNK + 1, 3 * CHUNK - 1]), min_size=1, max_size=9)
dtypes = st.sampled_from(["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)


@drawn
@given(sizes=sizes, dtype=dtypes, max_norm=st.floats(0.01, 200), seed=seeds)
def test_clip(library: Library, launched: list[str], sizes: list[int], dtype: str, max_norm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(size).astype(dtype) for size in sizes]
    arrays = [library.array(value) for value in values]
    launched.clear()
    norm = library.numpy(library.backend.clip_norm(arrays, max_norm))
    assert launched == CLIP
    wide = [value.astype(np.longdouble) for value in values]
    exact = np.sqrt(sum(np.sum(value**2) for value in wide))
    eps = float(np.finfo(dtype).eps)
    assert (norm.shape, norm.dtype) == ((), dtype)
    assert abs(norm - exact) <= 20 * eps * exact
    rate = min(1, max_norm / (exact + np.longdouble(1e-6)))
    for array, value in zip(arrays, wide, strict=True):
        assert np.all(np.abs(library.numpy(array) - rate * value) <= 40 * eps * np.abs(value))


@pytest.mark.parametrize(("bad", "scaled"), [(np.nan, [np.nan, 3]), (np.inf, [np.nan, 0])])
def test_clip_of_what_is_not_finite(library: Library, bad: float, scaled: list[float]) -> None:
    array = library.array([bad, 3.0], "float32")
    assert not np.isfinite(library.numpy(library.backend.clip_norm([array], 1.0)))
    np.testing.assert_array_equal(library.numpy(array), scaled)


@drawn
@given(
    sizes=sizes,
    dtype=dtypes,
    betas=st.tuples(st.floats(0, 0.9999), st.floats(0.5, 0.99999)),  # a smaller one cancels out what v was
    decay=st.sampled_from([0.0, 0.01, 0.5]),
    seed=seeds,
)
def test_adam_step(
    library: Library,
    launched: list[str],
    sizes: list[int],
    dtype: str,
    betas: tuple[float, float],
    decay: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    rows = [[scale * rng.standard_normal(size).astype(dtype) for size in sizes] for scale in (1, 2, 3, 1)]
    rows[3] = [np.abs(v) for v in rows[3]]
    decayed = (rng.random(len(sizes)) < 0.5).tolist()
    own = [[library.array(x, dtype) for x in row] for row in rows]
    launched.clear()
    library.backend.adam_step(*own, 0.01, *betas, decay, decayed)
    assert launched == ADAM
    places = 8 * float(np.finfo(dtype).eps)
    for i, flag in enumerate(decayed):
        param, grad, m, v = (row[i].astype(np.longdouble) for row in rows)
        m += (1 - np.longdouble(betas[0])) * (grad - m)
        v += (1 - np.longdouble(betas[1])) * (grad**2 - v)
        param *= 1 - decay * flag
        exact = param - np.longdouble(0.01) * m / (np.sqrt(v) + np.longdouble(1e-7)), grad, m, v
        means = [np.abs(now) + np.abs(row[i]) for now, row in zip((m, v), rows[2:], strict=True)]
        step = 0.01 * (means[0] + np.abs(grad)) / np.sqrt(v)  # before anything in it cancels out
        sizes_of = np.abs(param) + 4 * step, np.abs(grad), *means
        for row, right, size in zip(own, exact, sizes_of, strict=True):
            assert np.all(np.abs(library.numpy(row[i]) - right) <= places * size)


def training(library: Library, dtype: str) -> list[np.ndarray]:
    """Parameters after three steps with a weight that decays and a bias that does not."""
    rng = np.random.default_rng(0)
    params, optimizer = [library.array(rng.standard_normal(shape), dtype) for shape in ((3, 5), (5,))], AdamW(0.1)
    for _ in range(3):
        optimizer.update(params, [library.array(rng.standard_normal(param.shape), dtype) for param in params])
    return [library.numpy(param) for param in params]


def test_half_precision_takes_the_kernel_too(library: Library, launched: list[str]) -> None:
    found, exact = training(library, "float16"), training(library, "float64")
    assert launched == 6 * ADAM
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=4e-3)


def test_arrays_with_gaps_and_of_two_dtypes_take_the_other_way(library: Library, launched: list[str]) -> None:
    wide = library.array(np.ones((4, 6)), "float32")
    for arrays in ([wide[:, ::2]], [wide + 0, library.array([1.0], "float64")]):
        before = [library.numpy(array) for array in arrays]
        exact = np.sqrt(sum(np.sum(x.astype(float) ** 2) for x in before))
        norm = float(library.backend.clip_norm(arrays, 0.5))
        assert norm == pytest.approx(exact, rel=1e-6)
        for array, value in zip(arrays, before, strict=True):
            np.testing.assert_allclose(library.numpy(array), value * 0.5 / exact, rtol=1e-5)
    assert launched == []


def test_tables_of_arrays_that_are_gone_are_let_go(library: Library, launched: list[str]) -> None:
    kept: list[Any] = [library.array(np.full(3, 4.0), "float32") for _ in range(2 * MOST_TABLES)]
    for array in kept:
        library.backend.clip_norm([array], 1.0)
    assert len(library.backend._optimizer._tables) == MOST_TABLES  # type: ignore[attr-defined]
    assert launched == len(kept) * CLIP
    np.testing.assert_allclose(library.numpy(kept[0]), 3**-0.5, rtol=1e-6)
