"""Dtype in is dtype out, and half precision sums in float32 or better."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
from support import Draw, Library

from attnbackends import Uniform
from attnlayers import functional as F

HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The distance from 1 to the next larger number."""


@pytest.fixture(params=[*HALVES, "float32", "float64"])
def dtype(request: pytest.FixtureRequest, library: Library) -> str:
    if not hasattr(library.xp, request.param):
        pytest.skip(f"{library.backend.name} has no {request.param}")
    return str(request.param)


@pytest.fixture(params=HALVES)
def half(request: pytest.FixtureRequest, library: Library) -> str:
    if not hasattr(library.xp, request.param):
        pytest.skip(f"{library.backend.name} has no {request.param}")
    return str(request.param)


def attention(d: Draw, T: int) -> list[Any]:
    out, saved = F.attention(d(2, 3, 5), d(2, T, 5), d(2, T, 7), scale=0.25, mask=d.mask(2, 1, T))
    return [out, *F.attention_backward(saved, d(2, 3, 7))]


def attention_weights(d: Draw, T: int) -> list[Any]:
    out, saved = F.attention_weights(d(2, 3, 5), d(2, T, 5), scale=0.25)
    return [out, *F.attention_weights_backward(saved, d(2, 3, T))]


def weighted_sum(d: Draw, T: int) -> list[Any]:
    out, saved = F.weighted_sum(d(2, T, 7), d(2, T))
    return [out, *F.weighted_sum_backward(saved, d(2, 7))]


def affine(d: Draw, T: int) -> list[Any]:
    out, saved = F.affine(d(3, T), d(T, 5), d(5))
    return [out, *F.affine_backward(saved, d(3, 5))]


def lstm(d: Draw, T: int) -> list[Any]:
    *out, saved = F.lstm(d(2, 3, T), d(T, 4 * 5), d(5, 4 * 5), d(4 * 5), h=d(2, 5), c=d(2, 5), mask=d.mask(2, 3))
    return [*out, *F.lstm_backward(saved, d(2, 3, 5), dh=d(2, 5), dc=d(2, 5))]


def embedding(d: Draw, T: int) -> list[Any]:
    out, saved = F.embedding(d(3, 5), d.ids(3, T))
    return [out, F.embedding_backward(saved, d(T, 5))]


def softmax(d: Draw, T: int) -> list[Any]:
    out, saved = F.softmax(d(3, T))
    return [out, F.softmax_backward(saved, d(3, T))]


def cross_entropy(d: Draw, T: int) -> list[Any]:
    loss, saved = F.cross_entropy(d(3, T), d.ids(T, 3))
    return [loss, F.cross_entropy_backward(saved)]


def dropout(d: Draw, T: int) -> list[Any]:
    out, saved = F.dropout(d(3, T), 0.5, Uniform(d.library.backend, 0))
    return [out, F.dropout_backward(saved, d(3, T))]


PAIRS = [attention, attention_weights, weighted_sum, affine, lstm, embedding, softmax, cross_entropy, dropout]


@pytest.mark.parametrize("pair", PAIRS)
def test_dtype_in_is_dtype_out(library: Library, dtype: str, pair: Callable[[Draw, int], list[Any]]) -> None:
    for array in pair(Draw(library, dtype), 5):
        assert array.dtype == getattr(library.xp, dtype)


class Rounded(Draw):
    """The numbers that another draw gives in half precision, in float64."""

    def __init__(self, library: Library, half: str) -> None:
        super().__init__(library, "float64")
        self.half = half

    def __call__(self, *shape: int) -> Any:
        return self.library.array(
            self.library.numpy(self.library.array(self.rng.standard_normal(shape), self.half)), "float64"
        )


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("T", [7, 1009])
def test_half_precision_is_a_rounding_away_from_float64(
    library: Library, half: str, pair: Callable[[Draw, int], list[Any]], T: int
) -> None:
    found, exact = pair(Draw(library, half), T), pair(Rounded(library, half), T)
    for one, truth in zip(found, exact, strict=True):
        numbers = library.numpy(truth)
        error = np.max(np.abs(library.numpy(one).astype(np.float64) - numbers))
        # Two roundings: of the result, and of what the backward of softmax and dropout keep.
        assert error <= 2 * HALVES[half] * np.max(np.abs(numbers))


def test_long_sums_do_not_stall(library: Library, half: str) -> None:
    """In half precision 2048 + 1 is 2048, in bfloat16 256 + 1 is 256."""
    count = 4096

    def ones(*shape: int) -> Any:
        return library.array(np.ones(shape), half)

    def numbers(array: Any) -> Any:
        return library.numpy(array).astype(np.float64).tolist()

    out, saved = F.affine(ones(1, count), ones(count, 1), ones(1) * 0)
    assert numbers(out) == [[count]]
    _, saved = F.affine(ones(count, 1), ones(1, 1), ones(1))
    _, dW, db = F.affine_backward(saved, ones(count, 1))
    assert (numbers(dW), numbers(db)) == ([[count]], [count])
    out, saved = F.weighted_sum(ones(count, 1), ones(count))
    assert numbers(out) == [count]
    _, saved = F.weighted_sum(ones(1, count), ones(1))
    assert numbers(F.weighted_sum_backward(saved, ones(count))[1]) == [count]
    _, saved = F.embedding(ones(2, 1), library.array(np.zeros(count), "int64"))
    assert numbers(F.embedding_backward(saved, ones(count, 1))) == [[count], [0]]
    out, saved = F.softmax(ones(1, count))
    assert numbers(out) == [[1 / count] * count]
    loss, _ = F.cross_entropy(ones(1, count), library.array([0]))
    assert float(library.numpy(loss)) == pytest.approx(log(count), rel=HALVES[half])
    out, saved = F.attention(ones(1, 1), ones(count, 1), ones(count, 1))
    assert numbers(out) == [[1]]
    _, saved = F.attention(ones(count, 1), ones(1, 1), ones(1, 1))
    assert numbers(F.attention_backward(saved, ones(count, 1))[2]) == [[count]]


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
@pytest.mark.parametrize("options", [{}, {"scale": 100.0}, {"causal": True, "query_start": -1}])
def test_the_log_sum_exp_of_a_query_that_attends_to_nothing(
    library: Library, dtype: str, keep_bytes: int, options: dict[str, Any]
) -> None:
    d = Draw(library, dtype)
    q, k, v, dout, dlse = d(3, 5), d(4, 5), d(4, 7), d(3, 7), d(3)
    mask = None if "causal" in options else library.array(np.array([[False], [True], [True]]))
    out, lse, saved = F.attention(q, k, v, mask=mask, return_lse=True, keep_bytes=keep_bytes, **options)
    assert lse.dtype == out.dtype
    assert np.isneginf(library.numpy(lse)).tolist() == [True, False, False]
    assert np.isfinite(library.numpy(lse)[1:]).all()
    for gradient in F.attention_backward(saved, dout, dlse=dlse):
        assert np.isfinite(library.numpy(gradient)).all()


def test_scores_beyond_half_precision(library: Library, half: str) -> None:
    """100 * 1000 is beyond the largest float16, 65504."""
    q, k, v = (library.array(x, half) for x in ([[1000.0]], [[100.0], [0.0]], [[2.0], [5.0]]))
    out, saved = F.attention(q, k, v, scale=1.0)
    assert library.numpy(out).tolist() == [[2]]
    assert all(np.isfinite(library.numpy(d)).all() for d in F.attention_backward(saved, library.array([[1.0]], half)))


def test_exp_of_scores_does_not_overflow_half_precision(library: Library) -> None:
    """Scores of up to 30 need no shift in float32, and their exp is no number of float16."""
    if library.backend.name == "array_api_strict":
        pytest.skip("array_api_strict has no float16")
    rng = np.random.default_rng(0)
    q, k, v, dout = (rng.standard_normal((2, 300, 16)).astype(np.float16) for _ in range(4))
    mask = np.ones((300, 300), dtype=bool)
    mask[:, 5] = False
    results = []
    for given, dtype in (((q, k, v, dout), "float16"), ([x.astype(float) for x in (q, k, v, dout)], "float64")):
        *arguments, incoming = (library.array(x, dtype) for x in given)
        out, saved = F.attention(*arguments, scale=1.0, mask=library.array(mask))
        results.append([library.numpy(x).astype(float) for x in (out, *F.attention_backward(saved, incoming))])
    for half, exact in zip(*results, strict=True):
        np.testing.assert_allclose(half, exact, rtol=0, atol=0.02)
