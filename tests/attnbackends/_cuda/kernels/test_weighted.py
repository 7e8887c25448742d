"""Attention by products with one kernel between them: any options, against NumPy in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import get_backend
from attnbackends._cuda.plans import CudaAttention
from attnbackends._cuda.weighted import WeightedAttention
from attnlayers import functional as F

ml_dtypes = pytest.importorskip("ml_dtypes")

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""What errors are allowed to be, beside the largest number of a result; inputs are rounded to the dtype before."""

NOTHING = np.nan


@contextmanager
def only_products(library: Library) -> Iterator[None]:
    """No other way of attention takes a call."""
    backend = library.backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CudaAttention, "KERNELS", ())
        own = CudaAttention(backend._kernels)
        patch.setitem(backend.__dict__, "_attention_kernels", own)
        patch.setitem(backend.__dict__, "_weighted", WeightedAttention(backend._kernels, backend._products, own))
        patch.setitem(backend.__dict__, "_cudnn_or_reason", "not asked")
        yield


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes, arrays in float64 and options of a call; NaN in what nothing may look at."""
    N, heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    T_q = draw(st.sampled_from([1, 3, 17]))
    T_k = draw(st.sampled_from([1, 5, 8, 64, 71, 300]))
    D, D_v = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    shared = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    options: dict[str, Any] = {}
    if groups > 1:
        options["grouped"] = True
    if draw(st.booleans()):
        options["causal"] = True
    if draw(st.booleans()):
        options["window"] = (draw(st.none() | st.integers(0, 70)), draw(st.none() | st.integers(0, 70)))
    if "causal" in options or "window" in options:
        each = st.integers(-4, 80)
        options["query_start"] = draw(st.one_of(each, st.just("end"), st.lists(each, min_size=N, max_size=N)))
    if draw(st.booleans()):
        options["key_lengths"] = draw(st.lists(st.integers(0, T_k), min_size=N, max_size=N))
    if draw(st.booleans()):
        options["softcap"] = draw(st.sampled_from([0.7, 30.0]))
    if draw(st.booleans()):
        options |= {"dropout": draw(st.sampled_from([0.1, 0.6])), "seed": draw(st.integers(0, 2**64 - 1))}
    arrays = {
        "q": rng.standard_normal((N, heads * groups, T_q, D)),
        "k": rng.standard_normal((N, heads, T_k, D)),
    }
    if not shared:
        arrays["v"] = rng.standard_normal((N, heads, T_k, D_v))
    full = (N, heads * groups, T_q, T_k)
    for name in draw(st.sampled_from([(), ("mask",), ("bias",), ("mask", "bias")])):
        shape = tuple(n if draw(st.booleans()) else 1 for n in full)
        values = rng.standard_normal(shape)
        arrays[name] = values > -0.4 if name == "mask" else values
    if draw(st.booleans()):
        arrays["sinks"] = rng.standard_normal(heads * groups)
    return {
        "arrays": arrays,
        "options": options,
        "scale": draw(st.sampled_from([None, -0.3])),
        "lse": draw(st.booleans()),
        "dout": draw(st.sampled_from(["dense", "part", "turned"])),
        "spoil": draw(st.booleans()),
        "rng": rng,
    }


def spoiled(call: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays with NaN in queries that see nothing and keys that no query of their head sees."""
    arrays, options = dict(call["arrays"]), dict(call["options"])
    q, k = arrays["q"], arrays["k"]
    sight = {name: value for name, value in options.items() if name not in ("softcap", "dropout", "seed")}
    if "mask" in arrays:
        sight["mask"] = arrays["mask"]
    zeros = np.zeros_like(q), np.zeros_like(k), np.ones((*k.shape[:-1], 1))
    *_, saved = F.attention(*zeros, **sight)
    seen = saved.weights > 0  # of equal scores
    arrays["q"] = np.where(seen.any(axis=-1)[..., None], q, NOTHING)
    by_key_head = seen.reshape(*k.shape[:2], -1, k.shape[2]).any(axis=2)[..., None]
    for name in ("k", "v"):
        if name in arrays:
            arrays[name] = np.where(by_key_head, arrays[name], NOTHING)
    return arrays


def results(backend: Any, call: dict[str, Any], arrays: dict[str, Any], move: Any, dout: Any, dlse: Any) -> list[Any]:
    given = {name: move(x) if x.dtype != bool else backend.asarray(x) for name, x in arrays.items()}
    out, lse, saved = F.attention(**given, **call["options"], scale=call["scale"], return_lse=True)
    if backend.name == "cupy":
        assert isinstance(saved.result._way, WeightedAttention) is call.get("products", True)
    further: dict[str, Any] = {"grads": ["sinks"]} if "sinks" in arrays else {}
    further |= {"dlse": move(dlse)} if call["lse"] else {}
    return [out, lse, *F.attention_backward(saved, dout(move), **further)]


@pytest.mark.parametrize("name", ["cupy"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=40, deadline=None)
@given(call=calls())
def test_any_options(name: str, dtype: str, call: dict[str, Any]) -> None:
    library, numpy = library_of(name), get_backend("numpy")
    kind, rng = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), call["rng"]
    if not library.backend._products.takes(kind):
        pytest.skip(f"the device multiplies no {dtype}")
    rounded = {n: x if x.dtype == bool else x.astype(kind) for n, x in call["arrays"].items()}
    wide = {n: x if x.dtype == bool else x.astype(np.float64) for n, x in rounded.items()}
    q, values = wide["q"], wide.get("v", wide["k"])
    dout = rng.standard_normal((*q.shape[:-1], values.shape[-1])).astype(kind)
    dlse = rng.standard_normal(q.shape[:-1]).astype(kind)

    def laid_out(move: Any) -> Any:
        if call["dout"] == "part":
            return move(np.concatenate((dout, dout), axis=-1))[..., : dout.shape[-1]]
        if call["dout"] == "turned":
            return move(np.ascontiguousarray(dout.swapaxes(-1, -2))).swapaxes(-1, -2)
        return move(dout)

    exact = results(numpy, call, wide, lambda x: x.astype(np.float64), lambda move: dout.astype(np.float64), dlse)
    call = call | {"arrays": wide}
    given_arrays = spoiled(call) if call["spoil"] else wide
    with only_products(library):
        move = lambda x: library.xp.asarray(x.astype(kind))  # noqa: E731
        found = results(library.backend, call, given_arrays, move, laid_out, dlse)
    empty = np.isneginf(exact[1])
    largest = max(float(np.max(np.abs(x))) for x in (*wide.values(), dout.astype(np.float64)) if x.dtype != bool)
    for i, (one, other) in enumerate(zip(map(library.numpy, found), exact, strict=True)):
        assert one.dtype == kind
        one = one.astype(np.float64)
        if i == 1:
            np.testing.assert_array_equal(np.isneginf(one), empty)
            one, other = one[~empty], other[~empty]
        size = max(largest, float(np.max(np.abs(other), initial=0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype] * size, err_msg=f"result {i}")


@pytest.mark.parametrize("library", ["cupy"], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T_k", [600, 1024, 1025, 9000])
def test_long_rows(library: Library, dtype: str, T_k: int) -> None:
    """Rows of a warp, of a block, and longer than registers hold."""
    rng = np.random.default_rng(0)
    arrays = {
        "q": 3 * rng.standard_normal((2, 3, 5)),
        "k": rng.standard_normal((2, T_k, 5)),
        "v": rng.standard_normal((2, T_k, 4)),
    }
    call = {"options": {"dropout": 0.2, "seed": 1, "softcap": 9.0}, "scale": 1.0, "lse": True}
    dout, dlse = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3))
    exact = results(get_backend("numpy"), call, arrays, lambda x: x, lambda move: dout, dlse)
    with only_products(library):
        move = lambda x: library.array(x.astype(dtype))  # noqa: E731
        found = results(library.backend, call, arrays, move, lambda move: move(dout), dlse)
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        size = float(np.max(np.abs(other)))
        np.testing.assert_allclose(one, other, rtol=0, atol=(1e-5 if dtype == "float32" else 1e-13) * size)


@pytest.mark.parametrize("library", ["cupy"], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backward_of_what_a_kernel_began(library: Library, dtype: str) -> None:
    """A kernel has the forward pass of few queries, and none the backward pass of wide ones."""
    rng = np.random.default_rng(0)
    arrays = {"q": rng.standard_normal((2, 3, 160)), "k": rng.standard_normal((2, 700, 160))}
    options = {"dropout": 0.2, "seed": 1, "softcap": 9.0, "key_lengths": [700, 300]}
    call = {"options": options, "scale": None, "lse": True, "products": False}
    dout, dlse = rng.standard_normal((2, 3, 160)), rng.standard_normal((2, 3))
    exact = results(get_backend("numpy"), call, arrays, lambda x: x, lambda move: dout, dlse)
    move = lambda x: library.array(x.astype(dtype))  # noqa: E731
    found = results(library.backend, call, arrays, move, lambda move: move(dout), dlse)
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        size = float(np.max(np.abs(other)))
        np.testing.assert_allclose(one, other, rtol=0, atol=(1e-5 if dtype == "float32" else 1e-13) * size)
