"""Rows whose scores are shifted far: by a bias, or because queries and keys are large.

Beside a score of 1e8 the logarithm of a sum of weights is lost in float32. Scores here are such that every product is
exact; the oracle takes them as they are rounded, and goes on in float64.
"""

from typing import Any

import numpy as np
import pytest
from dense_attention import from_scores
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnlayers import functional as F
from attnlayers.functional._attention.dense import Dense

LOWEST = float(np.finfo(np.float32).min)
FAR = {"-1e9": -1e9, "the lowest number": LOWEST, "1e8": 1e8, "near": -5.0}


def keeps_weights(saved: Any) -> bool:
    """Whether weights were kept for backward, which is one of the ways to compare."""
    return isinstance(saved.result, Dense)


def large(
    library: Library, number: float, T_q: int, T_k: int, dtype: str = "float32"
) -> tuple[Any, Any, dict[str, Any]]:
    """Queries, keys and options that give every score of one entry the same value."""
    if number > 0:
        return (
            library.array(np.full((1, T_q, 1), 1e4), dtype),
            library.array(np.full((1, T_k, 1), number / 1e4), dtype),
            {},
        )
    bias = np.zeros((T_q, T_k))
    bias[0] = number
    return *(library.array(np.zeros((1, T, 1)), dtype) for T in (T_q, T_k)), {"bias": library.array(bias, dtype)}


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
@pytest.mark.parametrize("number", FAR.values(), ids=FAR)
def test_equal_scores_have_equal_weights(library: Library, number: float, keep_bytes: int) -> None:
    """The first row of two alone has a gradient: a quarter of it for each of four values."""
    q, k, options = large(library, number, 2, 4)
    v = library.array(np.ones((1, 4, 1)), "float32")
    out, saved = F.attention(q, k, v, keep_bytes=keep_bytes, **options)
    dq, dk, dv = F.attention_backward(saved, library.array([[[1.0], [0.0]]], "float32"))
    np.testing.assert_allclose(library.numpy(dv), np.full((1, 4, 1), 0.25), rtol=1e-6)
    np.testing.assert_allclose(library.numpy(saved.weights), np.full((1, 2, 4), 0.25), rtol=1e-6)
    np.testing.assert_array_equal(library.numpy(out), 1)
    for gradient in (dq, dk):
        np.testing.assert_allclose(library.numpy(gradient), 0, atol=1e-2)  # of a difference of 1e-7 times 1e4


@pytest.mark.parametrize("number", [-1e9, 1e8])
def test_the_default_where_weights_are_not_kept(library: Library, number: float) -> None:
    """1025 keys, 8 entries: 34 MB of weights. Fewer on CUDA, which a CPU may stand in for, thread by thread."""
    N, T = (2, 70) if library.backend.name == "cupy" else (8, 1025)
    q, k, options = large(library, number, T, T)
    q, k = (library.xp.broadcast_to(x, (N, T, 1)) for x in (q, k))
    rng = np.random.default_rng(0)
    v, dout = rng.standard_normal((N, T, 3)), np.zeros((N, T, 3))
    dout[:, 0] = rng.standard_normal((N, 3))
    if library.backend.name == "cupy":
        options["keep_bytes"] = 0
    _, saved = F.attention(q, k, library.array(v, "float32"), **options)
    assert not keeps_weights(saved)
    *_, dv = F.attention_backward(saved, library.array(dout, "float32"))
    np.testing.assert_allclose(library.numpy(dv), np.broadcast_to(dout[:, :1] / T, dv.shape), rtol=1e-5)


@st.composite
def calls(draw: Any) -> dict[str, Any]:
    """Scores of `shift` plus few small steps that float32 still tells apart there, and what is asked of them."""
    magnitude = draw(st.integers(4, 28))
    step = 2.0 ** max(-2, magnitude - 23)
    T_q, T_k = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    options = draw(
        st.sampled_from(
            [
                {},
                {"causal": True, "query_start": "end"},
                {"window": (5, 2), "query_start": 3},
                {"key_lengths": [T_k, T_k // 2]},
                {"query_offsets": [0, T_q // 2, T_q], "key_offsets": [0, T_k // 3, T_k]},
            ]
        )
    )
    return {
        "sizes": (T_q, T_k, draw(st.sampled_from([2, 11, 70]))),
        "shift": draw(st.sampled_from([-1, 1])) * 2.0**magnitude,
        "step": step,
        "by_bias": draw(st.booleans()),
        "hidden": draw(st.booleans()),
        "sinks": draw(st.sampled_from([None, 0.0, 1.0])),  # in shifts
        "options": options,
        "keep_bytes": draw(st.sampled_from([0, 2**20])),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def hidden_by(options: dict[str, Any], T_q: int, T_k: int) -> np.ndarray:
    """(2, T_q, T_k)."""
    equal = np.zeros((2, T_q, 1)), np.zeros((2, T_k, 1)), np.zeros((2, T_k, 1))
    *_, saved = F.attention(*equal, **options, return_weights=True)
    return saved.weights == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=calls())
def test_against_float64(library: Library, call: dict[str, Any]) -> None:
    """Every way agrees with softmax of the rounded scores, with whatever options decide which way that is."""
    (T_q, T_k, D), rng, dtype = call["sizes"], np.random.default_rng(call["seed"]), call["dtype"]
    q, k = np.zeros((2, T_q, D)), np.zeros((2, T_k, D))
    q[..., 1], k[..., 1] = rng.integers(-1, 2, (2, T_q)), rng.integers(-2, 3, (2, T_k)) * call["step"]
    mask = bias = None
    if call["by_bias"]:
        bias = np.broadcast_to(call["shift"] * rng.integers(0, 2, (T_q, 1)), (T_q, T_k)).copy()
        bias[rng.random((T_q, T_k)) < (0.3 if call["hidden"] else 0)] = -np.inf
    else:
        q[..., 0], k[..., 0] = 16.0, call["shift"] / 16
        if call["hidden"]:
            mask = rng.random((T_q, T_k)) < 0.7
    v, dout, dlse = (rng.standard_normal(shape) for shape in ((2, T_k, 5), (2, T_q, 5), (2, T_q)))
    scores = q @ np.swapaxes(k, -1, -2)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    scores[hidden_by(call["options"], T_q, T_k)] = -np.inf
    sinks = None if call["sinks"] is None else np.full(2, call["sinks"] * call["shift"])
    v, dout, dlse = (x.astype(dtype).astype("float64") for x in (v, dout, dlse))
    exact = from_scores(scores.astype(dtype), v, dout, dlse, sinks)

    def given_as(x: np.ndarray | None) -> Any:
        return None if x is None else library.array(x, None if x.dtype == bool else dtype)

    out, lse, saved = F.attention(
        *map(given_as, (q, k, v)),
        mask=given_as(mask),
        bias=given_as(bias),
        scale=1.0,
        sinks=given_as(sinks),
        return_lse=True,
        keep_bytes=call["keep_bytes"],
        **call["options"],
    )
    grads = [name for name, x in (("bias", bias), ("sinks", sinks)) if x is not None]
    dq, dk, dv, *further = F.attention_backward(saved, given_as(dout), dlse=given_as(dlse), grads=grads)
    right = {
        "out": exact["out"],
        "lse": exact["lse"],
        "dq": exact["dscores"] @ k,
        "dk": np.swapaxes(exact["dscores"], -1, -2) @ q,
        "dv": exact["dv"],
        "bias": exact["dscores"].sum(axis=0),
        "sinks": exact["dsinks"],
    }
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    for name, found in {
        "out": out,
        "lse": lse,
        "dq": dq,
        "dk": dk,
        "dv": dv,
        **dict(zip(grads, further, strict=True)),
    }.items():
        # What dscores are multiplied by may be 1e7, and they are exact to their largest alone.
        factor = {"dq": np.abs(k).max(initial=0), "dk": np.abs(q).max(initial=0)}.get(name, 1)
        size = (T_q + T_k) * max(
            1.0, factor, float(np.max(np.abs(right[name]), where=np.isfinite(right[name]), initial=0))
        )
        np.testing.assert_allclose(
            library.numpy(found), right[name], rtol=tolerance, atol=tolerance * size, err_msg=name
        )


@pytest.mark.parametrize(
    "option", [{"dropout": 0.4, "seed": 3}, {"softcap": 2.0**27}, {"softcap": 3.0}, {"return_weights": True}]
)
@pytest.mark.parametrize("far", [False, True])
def test_weights_made_again_are_those_that_were_kept(library: Library, option: dict[str, Any], far: bool) -> None:
    """Where the oracle has no such option: gradients with weights that were kept, and without."""
    rng = np.random.default_rng(1)
    q, k, v, dout = (rng.standard_normal((2, T, 3)) for T in (7, 9, 9, 7))
    bias = np.where(np.arange(7)[:, None] % 2 == 0, -1e9 if far else -1.0, 0.0) + np.zeros((7, 9))
    found = []
    for keep in (True, False):
        arguments = [library.array(x, "float32") for x in (q, k, v)]
        given = dict(option) if keep or "return_weights" not in option else {}
        given |= {"keep_bytes": 2**20 if keep else 0, "return_weights": keep}
        out, *_, saved = F.attention(*arguments, bias=library.array(bias, "float32"), **given)
        assert keeps_weights(saved) is keep
        gradients = F.attention_backward(saved, library.array(dout, "float32"), grads=["bias"])
        found.append([library.numpy(x) for x in (out, *gradients)])
    for kept, made_again in zip(*found, strict=True):
        np.testing.assert_allclose(made_again, kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [-6e4, 3e8])
def test_half_precision(library: Library, number: float) -> None:
    if library.backend.name == "array_api_strict":
        pytest.skip("array_api_strict has no float16")
    q, k, options = large(library, number, 3, 50, "float16")
    v, dout = (library.array(np.ones((1, T, 8)), "float16") for T in (50, 3))
    _, saved = F.attention(q, k, v, keep_bytes=0, scale=1.0, **options)
    *_, dv = F.attention_backward(saved, dout)
    np.testing.assert_allclose(library.numpy(dv), 3 / 50, rtol=2e-3)
