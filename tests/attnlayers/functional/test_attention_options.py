"""Every option of `attention`, alone and combined, drawn by hypothesis, against dense_attention.py in float64."""

from typing import Any

import numpy as np
import pytest
from conftest import library_of
from dense_attention import dense_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends._cpu.products import split
from attnlayers import functional as F


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes and options of a call, and how its scores are cut into blocks."""
    option: dict[str, Any] = {}
    T_q, T_k = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    lead = draw(st.sampled_from([(), (3,), (2, 3)]))
    groups = 1
    if lead and draw(st.booleans()):
        option["grouped"], groups = True, draw(st.integers(1, 3))
    heads = (*lead[:-1], lead[-1] * groups) if lead else ()
    positional = draw(st.sampled_from(["none", "causal", "window", "both"]))
    if positional in ("causal", "both"):
        option["causal"] = True
    if positional in ("window", "both"):
        option["window"] = (draw(st.none() | st.integers(0, 4)), draw(st.none() | st.integers(0, 4)))
    batched = len(lead) > ("grouped" in option)
    bounds = draw(st.sampled_from(["none", "packed", *["lengths"] * batched]))
    if bounds == "lengths":
        option["key_lengths"] = draw(st.lists(st.integers(0, T_k), min_size=lead[0], max_size=lead[0]))
    if bounds == "packed":
        cuts = draw(st.integers(0, 3))
        rising = [sorted(draw(st.lists(st.integers(0, T), min_size=cuts, max_size=cuts))) for T in (T_q, T_k)]
        for name, cut, T in zip(("query_offsets", "key_offsets"), rising, (T_q, T_k), strict=True):
            option[name] = [0, *cut, T]
    if positional != "none":
        each = st.integers(-2, 6)
        starts: Any = [st.just("start"), st.just("end"), each]
        if bounds != "packed" and batched:
            starts.append(st.lists(each, min_size=lead[0], max_size=lead[0]))
        option["query_start"] = draw(st.one_of(starts))
    option["scale"] = draw(st.sampled_from([None, 1.0, -0.3]))
    option["softcap"] = draw(st.sampled_from([None, None, 1.5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([1.0, 1.0, 30.0]))
    D, D_v = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    arrays = {
        "q": rng.standard_normal((*heads, T_q, D)) * size,
        "k": rng.standard_normal((*lead, T_k, D)),
        "v": rng.standard_normal((*lead, T_k, D_v)),
    }
    full = (*heads, T_q, T_k)
    for name in draw(st.sampled_from([(), ("mask",), ("bias",), ("mask", "bias")])):
        shape = tuple(n if draw(st.booleans()) else 1 for n in full)[draw(st.integers(0, len(full))) :]
        values = rng.standard_normal(shape)
        arrays[name] = values > -0.4 if name == "mask" else values
    if heads and draw(st.booleans()):
        arrays["sinks"] = rng.standard_normal(heads[-1:])
    return {
        "option": option,
        "arrays": arrays,
        "block": (draw(st.sampled_from([1, 2, 3, 100])), draw(st.sampled_from([1, 2, 4, 100]))),
        "pieces": draw(st.sampled_from([1, 2, 5])),
        "keep_bytes": draw(st.sampled_from([0, 2**20])),
        "return_weights": draw(st.booleans()),
        "rng": rng,
    }


def cut(patch: pytest.MonkeyPatch, library: Library, call: dict[str, Any]) -> None:
    """Cut scores into blocks, and what is worked on in pieces, as the call says."""
    patch.setattr(library.backend, "block_of_scores", lambda rows, keys, itemsize: call["block"])
    patch.setattr(
        library.backend,
        "chunks",
        lambda count, bytes_each, at_least=1: split(count, max(1, min(call["pieces"], count))),
    )


def objective(arrays: dict[str, Any], option: dict[str, Any], douts: dict[str, Any]) -> float:
    """What backward is the gradient of: a weighted sum of all outputs, rows that see nothing left out of the lse."""
    out, weights, lse = dense_attention(**arrays, **option)
    finite = np.where(np.isneginf(lse), 0, lse)
    return float(np.sum(out * douts["out"]) + np.sum(weights * douts["weights"]) + np.sum(finite * douts["lse"]))


@pytest.mark.parametrize("name", ["numpy", "numpy-read-only", "array_api_strict", "torch", "cupy"])
@settings(max_examples=150, deadline=None)
@given(call=calls())
def test_any_combination(name: str, call: dict[str, Any]) -> None:
    library = library_of(name)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        cut(patch, library, call)
        check(library, call)


def check(library: Library, call: dict[str, Any]) -> None:
    option, arrays, rng = call["option"], call["arrays"], call["rng"]
    out, weights, lse = dense_attention(**arrays, **option)
    ours = {key: library.array(value) for key, value in arrays.items()}
    *results, saved = F.attention(
        **ours, **option, keep_bytes=call["keep_bytes"], return_weights=call["return_weights"], return_lse=True
    )
    found = dict(zip(["out", "weights", "lse"] if call["return_weights"] else ["out", "lse"], results, strict=True))
    np.testing.assert_allclose(library.numpy(found["out"]), out, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(library.numpy(saved.weights), weights, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(library.numpy(found["lse"]), lse, rtol=1e-9, atol=1e-9)
    seen = ~np.isneginf(lse)

    douts = {key: rng.standard_normal(x.shape) for key, x in (("out", out), ("weights", weights), ("lse", lse))}
    douts["lse"] = np.where(seen, douts["lse"], 0)
    if not call["return_weights"]:
        douts["weights"] = np.zeros_like(weights)
    further = [name for name in ("bias", "sinks") if name in arrays]
    gradients = F.attention_backward(
        saved,
        library.array(douts["out"]),
        dweights=library.array(douts["weights"]) if call["return_weights"] else None,
        dlse=library.array(douts["lse"]),
        grads=further,
    )
    for name, gradient in zip(["q", "k", "v", *further], gradients, strict=True):
        direction = rng.standard_normal(arrays[name].shape)
        step = 1e-5
        moved = [arrays | {name: arrays[name] + sign * step * direction} for sign in (1, -1)]
        numeric = (objective(moved[0], option, douts) - objective(moved[1], option, douts)) / (2 * step)
        products = library.numpy(gradient) * direction
        assert products.shape == arrays[name].shape
        scale = max(1.0, abs(numeric), float(np.sqrt(np.sum(products**2))), float(np.max(np.abs(arrays["q"]))))
        assert abs(numeric - products.sum()) <= 1e-5 * scale, name


@pytest.mark.parametrize("name", ["numpy", "numpy-read-only", "torch", "cupy"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@settings(max_examples=60, deadline=None)
@given(call=calls())
def test_any_combination_in_less_precision(name: str, dtype: str, call: dict[str, Any]) -> None:
    """Scores here reach some hundreds: in float32 they are off by 1e-5, and so are weights, relatively."""
    library = library_of(name)
    option = call["option"]
    arrays = {key: x if x.dtype == bool else x.astype(dtype) for key, x in call["arrays"].items()}
    out, _, _ = dense_attention(
        **{k: x if x.dtype == bool else x.astype("float64") for k, x in arrays.items()}, **option
    )
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, library, call)
        ours = {key: library.array(value) for key, value in arrays.items()}
        found, saved = F.attention(**ours, **option, keep_bytes=call["keep_bytes"])
        gradients = F.attention_backward(saved, library.array(call["rng"].standard_normal(out.shape), dtype))
    assert str(found.dtype).endswith(dtype)
    assert all(str(gradient.dtype).endswith(dtype) for gradient in gradients)
    assert all(np.isfinite(library.numpy(gradient)).all() for gradient in gradients)
    np.testing.assert_allclose(library.numpy(found), out, atol=2e-3 if dtype == "float32" else 2e-2)
