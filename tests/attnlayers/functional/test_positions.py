"""Rotary positions and ALiBi."""

from typing import Any

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import Pair
from support import Draw, Library

from attnlayers import functional as F
from attnlayers import gradcheck

N, H, T, D = 2, 3, 5, 14


def turned(x: np.ndarray, positions: np.ndarray, base: float, interleaved: bool, size: int) -> np.ndarray:
    """One pair at a time, as a complex number."""
    out = x.copy()
    positions = np.broadcast_to(positions, (x.shape[0], x.shape[-2]))
    for n, *rest, t in np.ndindex(x.shape[:-1]):
        for i in range(size // 2):
            a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + size // 2)
            row = x[(n, *rest, t)]
            z = (row[a] + 1j * row[b]) * np.exp(1j * positions[n, t] * base ** (-2 * i / size))
            out[(n, *rest, t)][[a, b]] = z.real, z.imag
    return out


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [None, 4, 0])
@pytest.mark.parametrize("batched", [False, True])
def test_rotary_against_complex_numbers(library: Library, interleaved: bool, size: int | None, batched: bool) -> None:
    draw = Draw(library)
    x, positions = draw(N, H, T, D), draw.ids(1000, *((N,) if batched else ()), T)
    out, _ = F.rotary(x, positions, base=100.0, interleaved=interleaved, size=size)
    expected = turned(library.numpy(x), library.numpy(positions), 100.0, interleaved, D if size is None else size)
    np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_gradients(library: Library, interleaved: bool) -> None:
    draw = Draw(library)
    gradcheck(Pair(F.rotary, F.rotary_backward, interleaved=interleaved, size=6), draw(N, H, T, D), draw.ids(50, N, T))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(-500, 500), st.booleans())
def test_only_the_distance_counts(i: int, j: int, shift: int, interleaved: bool) -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, D))

    def product(i: int, j: int) -> float:
        a, b = (F.rotary(x, np.array([p]), interleaved=interleaved)[0] for x, p in ((q, i), (k, j)))
        return float(np.sum(a * b))

    assert product(i, j) == pytest.approx(product(i + shift, j + shift), rel=1e-9, abs=1e-9)


def test_far_positions_are_as_exact_as_near_ones_in_float32(library: Library) -> None:
    draw = Draw(library, "float32")
    x, positions = draw(T, D), library.array(np.arange(100_000, 100_000 + T))
    out, _ = F.rotary(x, positions)
    expected = turned(library.numpy(x).astype(np.float64)[None], np.arange(100_000, 100_000 + T), 1e4, False, D)[0]
    np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtypes(library: Library, dtype: str) -> None:
    if not hasattr(library.xp, dtype):
        pytest.skip(f"{library.backend.name} has no {dtype}")
    draw = Draw(library, dtype)
    x = draw(N, T, D)
    out, saved = F.rotary(x, draw.ids(9, T))
    assert out.dtype == x.dtype == F.rotary_backward(saved, out).dtype
    slopes = draw(H)
    bias, saved_alibi = F.alibi(slopes, draw.ids(9, 3), draw.ids(9, T))
    assert bias.dtype == slopes.dtype == F.alibi_backward(saved_alibi, bias).dtype


@pytest.mark.parametrize(
    ("positions", "size", "message"),
    [
        (np.arange(4), None, r"`positions` must have shape .* = \(\*, 5\) to go with x \(2, 3, 5, 14\), got \(4,\)"),
        (np.ones((3, T), int), None, r"`positions` must have shape \(T,\) or \(N, T\) to go with x .*, got \(3, 5\)"),
        (np.ones((1, 2, T), int), None, r"`positions` must have shape \(T,\) or \(N, T\), got \(1, 2, 5\)"),
        (np.arange(T), 3, "`size` must be even and at most D = 14, got 3"),
        (np.arange(T), 16, "`size` must be even and at most D = 14, got 16"),
        (np.arange(T) * 1.0, None, "`positions` must be integers, got float64"),
    ],
)
def test_bad_arguments(positions: np.ndarray, size: int | None, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        F.rotary(np.ones((N, H, T, D)), positions, size=size)


def test_alibi_by_loops(library: Library) -> None:
    slopes, i, j = [0.5, 0.25], [3, 0, 7], [0, 1, 2, 3, 9]
    bias, _ = F.alibi(library.array(slopes), library.array(i), library.array(j))
    expected = [[[-s * abs(a - b) for b in j] for a in i] for s in slopes]
    np.testing.assert_array_equal(library.numpy(bias), expected)


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize(
    ("dtype", "i", "j", "expected"), [("uint8", 0, [0, 1, 2], [0, -0.5, -1]), ("int8", 100, [-100, 100], [-100, 0])]
)
def test_distances_of_narrow_positions(library: Library, dtype: str, i: int, j: list[int], expected: Any) -> None:
    bias, _ = F.alibi(library.array([0.5]), library.array([i], dtype), library.array(j, dtype))
    assert library.numpy(bias).tolist() == [[expected]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtypes=st.tuples(*[st.sampled_from(INTEGERS)] * 2))
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "cupy"])
def test_positions_of_any_integer_dtype(name: str, data: st.DataObject, dtypes: tuple[str, str]) -> None:
    """The ends of each dtype too, as far as float64 has them all."""
    library = library_of(name)
    i, j = (
        data.draw(st.lists(st.integers(max(np.iinfo(t).min, -(2**52)), min(int(np.iinfo(t).max), 2**52)), min_size=3,
                           max_size=3))
        for t in dtypes
    )  # fmt: skip
    queries, keys = (library.array(np.array(at, t), t) for at, t in zip((i, j), dtypes, strict=True))
    bias, _ = F.alibi(library.array([0.5]), queries, keys)
    np.testing.assert_array_equal(library.numpy(bias)[0], [[-0.5 * abs(a - b) for b in j] for a in i])
    x = np.random.default_rng(0).standard_normal((3, 4))
    found, _ = F.rotary(library.array(x), queries, size=2)
    pairs = library.numpy(found)
    angles = np.array([float(a) for a in i])
    expected = (x[:, 0] + 1j * x[:, 1]) * np.exp(1j * angles)
    np.testing.assert_allclose(pairs[:, 0] + 1j * pairs[:, 1], expected, atol=1e-12)


def test_alibi_gradients(library: Library) -> None:
    draw = Draw(library)
    gradcheck(Pair(F.alibi, F.alibi_backward), draw(H), draw.ids(9, 3), draw.ids(9, T))


def test_slopes() -> None:
    assert F.alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert F.alibi_slopes(1) == [2.0**-8]
    assert F.alibi_slopes(12) == F.alibi_slopes(8) + F.alibi_slopes(16)[:8:2]  # as in the code of the paper
    with pytest.raises(ValueError, match="`heads` must be 1 or more, got 0"):
        F.alibi_slopes(0)


def test_alibi_is_what_a_query_sees(library: Library) -> None:
    """With values that tell keys apart, the weights are those of the distances."""
    q = library.array(np.zeros((1, H, T, 1)))
    bias, _ = F.alibi(library.array(F.alibi_slopes(H)), library.array(np.arange(T)), library.array(np.arange(T)))
    out, _ = F.attention(q, q, library.array(np.broadcast_to(np.eye(T), (1, H, T, T))), bias=bias, causal=True)
    weights = library.numpy(out)[0]
    for h, slope in enumerate(F.alibi_slopes(H)):
        for i in range(T):
            raw = np.array([np.exp(-slope * (i - j)) if j <= i else 0 for j in range(T)])
            np.testing.assert_allclose(weights[h, i], raw / raw.sum(), rtol=1e-12)
