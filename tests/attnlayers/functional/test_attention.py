"""The attention core: by hand, against loops, and by what must hold of any attention."""

from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library, assert_as_exact_as

from attnlayers import functional as F

N, HEADS, T_Q, T_K, D, D_V = 2, 3, 5, 7, 11, 13
RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal(shape) for shape in ((N, HEADS, T_Q, D), (N, HEADS, T_K, D), (N, HEADS, T_K, D_V)))
DOUT = RNG.standard_normal((N, HEADS, T_Q, D_V))

MASKS = {
    "none": None,
    "a number": np.array(True),
    "(T_k,)": RNG.random(T_K) < 0.7,
    "(1,)": np.array([True]),
    "(T_q, 1)": RNG.random((T_Q, 1)) < 0.7,
    "(T_q, T_k)": np.tri(T_Q, T_K, 1, dtype=bool),
    "(h, 1, T_k)": RNG.random((HEADS, 1, T_K)) < 0.7,
    "(N, 1, 1, T_k)": RNG.random((N, 1, 1, T_K)) < 0.7,
    "(N, h, T_q, T_k)": RNG.random((N, HEADS, T_Q, T_K)) < 0.5,
    "(N, 1, T_q, 1)": RNG.random((N, 1, T_Q, 1)) < 0.5,
    "(1, 1, T_q, T_k)": RNG.random((1, 1, T_Q, T_K)) < 0.5,
    "nothing": np.zeros((T_Q, T_K), dtype=bool),
}


def by_loops(dtype: Any, scale: float, mask: np.ndarray | None) -> list[np.ndarray]:
    """out, weights, dq, dk, dv, entry by entry."""
    full = np.broadcast_to(True if mask is None else mask, (N, HEADS, T_Q, T_K))
    q, k, v, dout = (x.astype(dtype) for x in (Q, K, V, DOUT))
    entries = [
        reference.attention(q[n, h], k[n, h], v[n, h], dtype(scale), full[n, h], dout[n, h])
        for n in range(N)
        for h in range(HEADS)
    ]
    return [np.stack(parts).reshape(N, HEADS, *parts[0].shape) for parts in zip(*entries, strict=True)]


def test_by_hand(library: Library) -> None:
    q, k, v = (library.array(x) for x in ([[1.0]], [[0.0], [log(2)], [log(3)]], [[6.0], [12.0], [18.0]]))
    out, saved = F.attention(q, k, v, scale=1.0)
    assert library.numpy(out) == pytest.approx(np.array([[14.0]]))
    assert library.numpy(saved.weights) == pytest.approx(np.array([[1, 2, 3]]) / 6)
    dq, dk, dv = (library.numpy(d) for d in F.attention_backward(saved, library.array([[1.0]])))
    assert dq == pytest.approx(np.array([[2 * log(3) - 2 / 3 * log(2)]]))
    assert dk == pytest.approx(np.array([[-4], [-2], [6]]) / 3)
    assert dv == pytest.approx(np.array([[1], [2], [3]]) / 6)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_loops(library: Library, dtype: Any, mask: str) -> None:
    scale = 1 / sqrt(D)
    exact, plain = by_loops(np.float64, scale, MASKS[mask]), by_loops(dtype, scale, MASKS[mask])
    q, k, v, dout = (library.array(x.astype(dtype)) for x in (Q, K, V, DOUT))
    out, saved = F.attention(q, k, v, mask=None if MASKS[mask] is None else library.array(MASKS[mask]))
    found = [out, saved.weights, *F.attention_backward(saved, dout)]
    for one, by_loop, truth in zip(found, plain, exact, strict=True):
        assert_as_exact_as(by_loop, library.numpy(one), truth)


@pytest.mark.parametrize("mask", MASKS)
def test_weights_alone_against_loops(library: Library, mask: str) -> None:
    _, weights, *_ = by_loops(np.float64, 0.5, MASKS[mask])
    given = None if MASKS[mask] is None else library.array(MASKS[mask])
    found, saved = F.attention_weights(library.array(Q), library.array(K), scale=0.5, mask=given)
    np.testing.assert_allclose(library.numpy(found), weights, atol=1e-14)
    dweights = RNG.standard_normal(weights.shape)
    dq, dk = F.attention_weights_backward(saved, library.array(dweights))
    dscores = weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(library.numpy(dq), 0.5 * dscores @ K, atol=1e-13)
    np.testing.assert_allclose(library.numpy(dk), 0.5 * np.swapaxes(dscores, -1, -2) @ Q, atol=1e-13)


@pytest.mark.parametrize(
    ("lead_q", "lead_k", "lead_v"),
    [
        ((), (), ()),
        ((N, HEADS), (), (1, 1)),
        ((), (HEADS,), (N, 1)),
        ((N, 1), (1, HEADS), (HEADS,)),
        ((1, 1, 1), (N, HEADS), ()),
        ((N, HEADS), (N, 1), (N, 1)),
    ],
)
def test_leading_axes_broadcast_and_gradients_are_summed_back(
    library: Library, lead_q: tuple[int, ...], lead_k: tuple[int, ...], lead_v: tuple[int, ...]
) -> None:
    shapes = ((*lead_q, T_Q, D), (*lead_k, T_K, D), (*lead_v, T_K, D_V))
    given = [RNG.standard_normal(shape) for shape in shapes]
    lead = np.broadcast_shapes(lead_q, lead_k, lead_v)
    full = [np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in given]
    mask = library.array(MASKS["(T_q, T_k)"])
    out, saved = F.attention(*(library.array(x) for x in given), mask=mask)
    full_out, full_saved = F.attention(*(library.array(x) for x in full), mask=mask)
    np.testing.assert_allclose(library.numpy(out), library.numpy(full_out), atol=1e-14)
    dout = library.array(RNG.standard_normal(out.shape))
    gradients, full_gradients = F.attention_backward(saved, dout), F.attention_backward(full_saved, dout)
    for x, gradient, full_gradient in zip(given, gradients, full_gradients, strict=True):
        summed = library.numpy(full_gradient)
        summed = summed.sum(axis=tuple(range(summed.ndim - x.ndim)))
        summed = summed.sum(axis=tuple(i for i, n in enumerate(x.shape) if n != summed.shape[i]), keepdims=True)
        assert gradient.shape == x.shape
        np.testing.assert_allclose(library.numpy(gradient), summed, atol=1e-13)


def test_keys_that_are_the_values_have_one_gradient(library: Library) -> None:
    q, hs, dout = library.array(Q), library.array(K), library.array(RNG.standard_normal(Q.shape))
    out, saved = F.attention(q, hs)
    apart_out, apart = F.attention(q, hs, hs)
    np.testing.assert_allclose(library.numpy(out), library.numpy(apart_out), atol=1e-14)
    dq, dhs = (library.numpy(d) for d in F.attention_backward(saved, dout))
    apart_dq, dk, dv = (library.numpy(d) for d in F.attention_backward(apart, dout))
    np.testing.assert_allclose(dq, apart_dq, atol=1e-13)
    np.testing.assert_allclose(dhs, dk + dv, atol=1e-13)


def test_backward_may_be_called_again(library: Library) -> None:
    _, saved = F.attention(*(library.array(x) for x in (Q, K, V)), mask=library.array(MASKS["(T_k,)"]))
    first, again = (F.attention_backward(saved, library.array(DOUT)) for _ in range(2))
    assert all(np.array_equal(library.numpy(a), library.numpy(b)) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shape", [(97, 1, 31, 61), (3, 2, 401, 307), (2, 1, 1, 5003), (1, 1, 1201, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_pieces_meet_without_a_seam(library: Library, shape: tuple[int, ...], masked: bool) -> None:
    B, h, T_q, T_k = shape
    q, k, v = (RNG.standard_normal(s) for s in ((B, h, T_q, 8), (B, h, T_k, 8), (B, h, T_k, 4)))
    mask = RNG.random((B, 1, 1, T_k)) < 0.7 if masked else np.ones((B, 1, 1, T_k), dtype=bool)
    weights = np.where(mask, np.exp(0.25 * q @ np.swapaxes(k, -1, -2)), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    dout = RNG.standard_normal((B, h, T_q, 4))
    dscores = dout @ np.swapaxes(v, -1, -2)
    dscores = 0.25 * weights * (dscores - (weights * dscores).sum(axis=-1, keepdims=True))
    given = (library.array(x) for x in (q, k, v))
    out, saved = F.attention(*given, scale=0.25, mask=library.array(mask) if masked else None)
    found = (library.numpy(x) for x in (out, *F.attention_backward(saved, library.array(dout))))
    expected = weights @ v, dscores @ k, np.swapaxes(dscores, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ dout
    for one, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, truth, atol=1e-11)


sizes = st.integers(1, 6)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), T_q=sizes, T_k=sizes, width=sizes, share=st.floats(0, 1), scale=st.floats(-9, 9))
def test_what_holds_of_any_attention(seed: int, T_q: int, T_k: int, width: int, share: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal(shape) for shape in ((T_q, width), (T_k, width), (T_k, 3)))
    mask = rng.random((T_q, T_k)) < share
    out, saved = F.attention(q, k, v, scale=scale, mask=mask)
    sums = saved.weights.sum(axis=-1)
    np.testing.assert_allclose(sums, mask.any(axis=-1), atol=1e-14)  # 1, or 0 where there is nothing to attend to
    assert (saved.weights[~mask] == 0).all()
    assert (saved.weights >= 0).all()
    # An average lies between what it averages.
    assert (out <= np.maximum(v.max(axis=0), 0) + 1e-12).all()

    order = rng.permutation(T_k)
    permuted, _ = F.attention(q, k[order], v[order], scale=scale, mask=mask[:, order])
    np.testing.assert_allclose(permuted, out, atol=1e-12)

    keys = rng.random(T_k) < 0.5
    masked, masked_saved = F.attention(q, k, v, scale=scale, mask=keys)
    cut, cut_saved = F.attention(q, k[keys], v[keys], scale=scale)
    np.testing.assert_allclose(masked, cut, atol=1e-12)
    dout = rng.standard_normal(out.shape)
    dq, dk, dv = F.attention_backward(masked_saved, dout)
    cut_dq, cut_dk, cut_dv = F.attention_backward(cut_saved, dout)
    np.testing.assert_allclose(dq, cut_dq, atol=1e-11)
    np.testing.assert_allclose(dk[keys], cut_dk, atol=1e-11)
    np.testing.assert_allclose(dv[keys], cut_dv, atol=1e-11)
    assert not dk[~keys].any()
    assert not dv[~keys].any()
