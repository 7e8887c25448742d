"""Attention at its limits: nothing to attend to, nothing at all, large scores, NaN, and what is refused."""

import re
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from support import Draw, Library

from attnbackends import BackendError
from attnlayers import functional as F

NAN, INF = np.nan, np.inf
RNG = np.random.default_rng(0)


def run(library: Library, q: Any, k: Any, v: Any, dout: Any, mask: Any = None) -> list[np.ndarray]:
    """out, dq, dk, dv."""
    given = None if mask is None else library.array(mask)
    out, saved = F.attention(*(library.array(x) for x in (q, k, v)), scale=1.0, mask=given)
    return [library.numpy(x) for x in (out, *F.attention_backward(saved, library.array(dout)))]


def test_a_query_with_nothing_to_attend_to_gives_0(library: Library) -> None:
    q, k, v, dout = (RNG.standard_normal(shape) for shape in ((3, 2), (4, 2), (4, 5), (3, 5)))
    mask = np.array([[True] * 4, [False] * 4, [True] * 4])
    out, dq, dk, dv = run(library, q, k, v, dout, mask)
    assert (out[1] == 0).all()
    assert (dq[1] == 0).all()
    kept = [0, 2]
    for found, expected in zip((out[kept], dq[kept], dk, dv), run(library, q[kept], k, v, dout[kept]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_nothing_to_attend_to_at_all(library: Library) -> None:
    q, k, v, dout = (RNG.standard_normal(shape) for shape in ((2, 3, 2), (2, 4, 2), (2, 4, 5), (2, 3, 5)))
    for found in run(library, q, k, v, dout, np.zeros((2, 1, 4), dtype=bool)):
        assert (found == 0).all()


@pytest.mark.parametrize(
    ("lead", "T_q", "T_k", "D", "D_v"),
    [((0,), 3, 4, 5, 2), ((2,), 0, 4, 5, 2), ((2,), 3, 0, 5, 2), ((2,), 0, 0, 5, 2), ((2,), 3, 4, 0, 2),
     ((2,), 3, 4, 5, 0), ((3, 0), 3, 4, 5, 2), ((), 3, 0, 5, 2)],
)  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_axes_of_length_0(
    library: Library, lead: tuple[int, ...], T_q: int, T_k: int, D: int, D_v: int, masked: bool
) -> None:
    q, k, v = RNG.random((*lead, T_q, D)), RNG.random((*lead, T_k, D)), RNG.random((*lead, T_k, D_v))
    mask = np.ones((*lead, T_q, T_k), dtype=bool) if masked else None
    out, dq, dk, dv = run(library, q, k, v, np.ones((*lead, T_q, D_v)), mask)
    assert out.shape == (*lead, T_q, D_v)
    assert [dq.shape, dk.shape, dv.shape] == [q.shape, k.shape, v.shape]
    expected = np.broadcast_to(v.mean(axis=-2, keepdims=True), out.shape) if T_k and not D else out
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out, expected)
    if not T_k:
        assert (out == 0).all()
        assert (dq == 0).all()
    if not T_q:
        assert (dk == 0).all()
        assert (dv == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_1e4(library: Library, dtype: str, sign: int) -> None:
    q = library.array([[100.0 * sign]], dtype)
    k, v = library.array([[100.0], [100.0], [-100.0]], dtype), library.array([[1.0], [3.0], [9.0]], dtype)
    out, saved = F.attention(q, k, v, scale=1.0)
    assert library.numpy(out).tolist() == [[2.0 if sign > 0 else 9.0]]
    assert library.numpy(saved.weights).tolist() == [[0.5, 0.5, 0] if sign > 0 else [0, 0, 1]]
    gradients = F.attention_backward(saved, library.array([[1.0]], dtype))
    assert all(np.isfinite(library.numpy(d)).all() for d in gradients)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["q", "k", "v", "dout"])
def test_nan_and_infinity_reach_the_rows_that_see_them(library: Library, bad: float, where: str) -> None:
    shapes = {"q": (2, 3, 5), "k": (2, 4, 5), "v": (2, 4, 7), "dout": (2, 3, 7)}
    arrays = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    good = run(library, **arrays)
    arrays[where][0, 1, 2] = bad
    out, *gradients = run(library, **arrays)
    for found, expected in zip((out, *gradients), good, strict=True):
        np.testing.assert_allclose(found[1], expected[1], atol=1e-14)  # the other entry sees nothing of it
    touched = np.zeros(out.shape, dtype=bool)
    touched[{"q": (0, 1), "k": (0,), "v": (0, slice(None), 2), "dout": ([],)}[where]] = True
    np.testing.assert_allclose(out[~touched], good[0][~touched], atol=1e-14)
    if np.isnan(bad) or where == "v":
        np.testing.assert_array_equal(out[touched], bad)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("mask", [np.array([True, False, True, True]), np.array([[[1, 0, 1, 1]], [[1, 0, 1, 1]]]) > 0])
def test_a_key_that_is_masked_may_hold_anything(library: Library, bad: float, mask: np.ndarray) -> None:
    q, k, v, dout = (RNG.standard_normal(shape) for shape in ((2, 3, 5), (2, 4, 5), (2, 4, 7), (2, 3, 7)))
    expected = run(library, q, k, v, dout, mask)
    k[:, 1], v[:, 1] = bad, bad
    for found, clean in zip(run(library, q, k, v, dout, mask), expected, strict=True):
        np.testing.assert_array_equal(found, clean)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_query_that_is_masked_may_hold_anything(library: Library, bad: float) -> None:
    q, k, v, dout = (RNG.standard_normal(shape) for shape in ((2, 3, 5), (2, 4, 5), (2, 4, 7), (2, 3, 7)))
    mask = np.array([[True], [False], [True]])
    expected = run(library, q, k, v, dout, mask)
    q[:, 1] = bad
    for found, clean in zip(run(library, q, k, v, dout, mask), expected, strict=True):
        np.testing.assert_array_equal(found, clean)


HIDDEN: dict[str, dict[str, Any]] = {
    "mask and causal": {"causal": True, "query_start": 1},
    "mask and window, starts": {"window": (2, 1), "query_start": [0, 4]},
    "mask and lengths": {"key_lengths": [5, 3]},
    "causal, starts": {"causal": True, "query_start": [0, 4]},
    "before the first key": {"causal": True, "query_start": [-2, 1]},
    "window at the end": {"window": (1, 0), "query_start": "end", "key_lengths": [7, 4]},
    "lengths": {"key_lengths": [5, 0]},
    "all before the first key but one": {"causal": True, "query_start": -4},
    "past the last key": {"window": (0, None), "query_start": 4},
}


@pytest.mark.parametrize("further", [{}, {"sinks": np.zeros(())}, {"softcap": 2.0}, {"scale": 100.0}])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_mask_and_positions_hide_together_may_hold_anything(
    library: Library, name: str, heads: int, kept: bool, further: dict[str, Any]
) -> None:
    rng = np.random.default_rng(1)
    q, dout = rng.standard_normal((2, heads, 5, 3)), rng.standard_normal((2, heads, 5, 2))
    k, v = rng.standard_normal((2, 1, 7, 3)), rng.standard_normal((2, 1, 7, 2))
    options = HIDDEN[name] | {"grouped": True, "keep_bytes": 2**20 if kept else 0}
    if "mask" in name:
        # From the key at a query's position on, every second query attends to nothing by the mask.
        before = np.arange(7) < np.arange(5)[:, None] + 1
        options["mask"] = library.array(np.where(np.arange(5)[:, None] % 2 == 0, before, np.arange(7) < 2))
    options |= {key: library.array(x) if key == "sinks" else x for key, x in further.items()}
    seen = library.numpy(F.attention(*(library.array(np.zeros_like(x)) for x in (q, k, v)), **options)[1].weights) > 0
    assert not seen.any(axis=(1, 2)).all()
    found = []
    for bad in (0.0, NAN, INF):
        k[~seen.any(axis=(1, 2))[:, None]] = bad
        v[~seen.any(axis=(1, 2))[:, None]] = bad
        q[~seen.any(axis=3)] = bad
        out, saved = F.attention(*(library.array(x) for x in (q, k, v)), **options)
        found.append([library.numpy(x) for x in (out, *F.attention_backward(saved, library.array(dout)))])
    for clean, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_array_equal(other, clean)


@pytest.mark.parametrize(
    "where",
    ["k", pytest.param("v", marks=pytest.mark.xfail(reason="a value meets a weight of 0 in the product: 0 * NaN"))],
)
def test_nan_does_not_reach_the_queries_that_a_causal_mask_keeps_from_it(library: Library, where: str) -> None:
    q, k, v, dout = (RNG.standard_normal(shape) for shape in ((4, 5), (4, 5), (4, 7), (4, 7)))
    mask = np.tri(4, dtype=bool)
    good, *_ = run(library, q, k, v, dout, mask)
    (k if where == "k" else v)[2] = NAN
    out, *_ = run(library, q, k, v, dout, mask)
    np.testing.assert_array_equal(out[:2], good[:2])
    assert np.isnan(out[2:]).all()


SHAPES = [
    (((3, 5), (4, 6), (4, 2)), None, "`k` must have shape (*, T_k, D) = (*, 4, 5) to go with q (3, 5), got (4, 6)"),
    (((3, 5), (4, 5), (3, 2)), None, "`v` must have shape (*, T_k, D_v) = (*, 4, D_v) to go with k (4, 5), got (3, 2)"),
    (((5,), (4, 5), (4, 2)), None, "`q` must have shape (*, T_q, D), got (5,)"),
    (((2, 3, 5), (4, 4, 5), (2, 4, 2)), None,
     "the leading axes of q, k, v must broadcast to one shape, got q (2, 3, 5), k (4, 4, 5), v (2, 4, 2)"),
    (((2, 3, 5), (2, 4, 5), (2, 4, 2)), (3, 3), "`mask` must broadcast to (..., T_q, T_k) = (2, 3, 4), got (3, 3)"),
    (((2, 3, 5), (2, 4, 5), (2, 4, 2)), (5, 2, 3, 4),
     "`mask` must broadcast to (..., T_q, T_k) = (2, 3, 4), got (5, 2, 3, 4)"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "mask", "message"), SHAPES)
def test_shapes_that_do_not_fit(library: Library, shapes: Any, mask: Any, message: str) -> None:
    given = [library.array(np.zeros(shape)) for shape in shapes]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.attention(*given, mask=None if mask is None else library.array(np.ones(mask, dtype=bool)))


def test_dtypes_that_do_not_fit(library: Library) -> None:
    wide, narrow = Draw(library), Draw(library, "float32")
    integers = library.array([[1, 2]])
    with pytest.raises(TypeError, match=r"^`q` must be floating point, got .*int64: convert it with xp.astype$"):
        F.attention(integers, integers, integers)
    with pytest.raises(
        TypeError, match=r"^`v` must have the dtype of q, .*float64, got .*float32: convert one of them"
    ):
        F.attention(wide(3, 5), wide(4, 5), narrow(4, 2))
    with pytest.raises(TypeError, match=r"^`mask` must be .*, got .*int64"):
        F.attention(wide(3, 5), wide(4, 5), wide(4, 2), mask=wide.ids(2, 3, 4))
    _, saved = F.attention(wide(3, 5), wide(4, 5), wide(4, 2))
    with pytest.raises(TypeError, match=r"^`dout` must have the dtype of q, .*float64, got .*float32"):
        F.attention_backward(saved, narrow(3, 2))
    with pytest.raises(
        ValueError, match=r"^`dout` must have the shape of what the forward pass returned, \(3, 2\), got"
    ):
        F.attention_backward(saved, wide(2, 3))


def test_libraries_that_do_not_fit() -> None:
    strict = Draw(library_of("array_api_strict"))
    with pytest.raises(BackendError, match=r"`q` is a numpy array on cpu, `k` is a array_api_strict array on"):
        F.attention(np.zeros((3, 5)), strict(4, 5), np.zeros((4, 2)))
    with pytest.raises(TypeError, match=r"^`k` must be an array of .*, got list: make one with"):
        F.attention(np.zeros((3, 5)), [[0.0] * 5] * 4, np.zeros((4, 2)))


def test_what_was_saved_elsewhere_is_refused() -> None:
    q, k = np.zeros((3, 5)), np.zeros((4, 5))
    _, of_weights = F.attention_weights(q, k)
    with pytest.raises(TypeError, match="`saved` must be what attention returned, got SavedWeights"):
        F.attention_backward(of_weights, np.zeros((3, 5)))
    *_, of_attention = F.attention(q, k, return_lse=True)
    with pytest.raises(TypeError, match="`saved` must be what attention_weights returned, got SavedAttention"):
        F.attention_weights_backward(of_attention, np.zeros((3, 4)))
