"""Masks and biases are taken as they come: no copy for each entry or head, whatever they are broadcast along."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from dense_attention import dense_attention
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers import functional as F

MiB = 2**20


def peak(grads: tuple[str, ...] = (), **options: Any) -> int:
    """Bytes that forward and backward of 4 entries of 8 heads hold at most, beside their arguments."""
    q = np.ones((4, 8, 512, 8), np.float32)
    dout = np.ones_like(q)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _, saved = F.attention(q, q[:, : 8 // options.get("groups", 1)], q[:, : 8 // options.pop("groups", 1)],
                               keep_bytes=0, **options)  # fmt: skip
        F.attention_backward(saved, dout, grads=grads)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


MASKS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "additive, for each head": ("bias", lambda: np.zeros((8, 512, 512), np.float32), {}),
    "additive, for each head, grouped": (
        "bias",
        lambda: np.zeros((8, 512, 512), np.float32),
        {"groups": 2, "grouped": True},
    ),
    "boolean, for each entry": ("mask", lambda: np.ones((4, 1, 512, 512), bool), {}),
    "boolean, for each entry, grouped": (
        "mask",
        lambda: np.ones((4, 1, 512, 512), bool),
        {"groups": 4, "grouped": True},
    ),
    "boolean, keys of each entry": ("mask", lambda: np.ones((4, 1, 1, 512), bool), {}),
    "boolean, keys of each query head": ("mask", lambda: np.ones((8, 1, 512), bool), {"groups": 2, "grouped": True}),
    "boolean, a view": ("mask", lambda: np.broadcast_to(np.ones((512, 512), bool), (4, 8, 512, 512)), {}),
}


@pytest.mark.parametrize("name", MASKS)
def test_memory_of_a_mask(name: str) -> None:
    argument, make, options = MASKS[name]
    mask = make()
    peak(**options)  # what is made once
    own = mask.base.nbytes if mask.base is not None else mask.nbytes
    more = peak(**{argument: mask}, **options) - peak(**options)
    assert more <= 1.1 * own + 4 * MiB, f"{more / MiB:.1f} MiB for a mask of {own / MiB:.1f}"


def test_memory_of_the_gradient_of_a_bias() -> None:
    bias = np.zeros((8, 512, 512), np.float32)
    peak()
    more = peak(("bias",), bias=bias) - peak()
    assert more <= 2.1 * bias.nbytes + 4 * MiB, f"{more / MiB:.1f} MiB"  # the copy, and the gradient itself


@st.composite
def masks(draw: st.DrawFn) -> dict[str, Any]:
    """A mask over some of the axes (N, M, G or H, T_q, T_k), each of them whole or of length 1, perhaps a view."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    lead = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    out_lead = (*lead[:-1], lead[-1] * groups)
    T_q, T_k = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    full = (*out_lead, T_q, T_k)
    shape = tuple(n if draw(st.booleans()) else 1 for n in full)[draw(st.integers(0, len(full))) :]
    return {
        "groups": groups, "lead": lead, "out_lead": out_lead, "T_q": T_q, "T_k": T_k, "shape": shape,
        "boolean": draw(st.booleans()),
        "view": draw(st.sampled_from(["no", "broadcast", "reversed", "transposed"])),
        "keep_bytes": draw(st.sampled_from([0, MiB])),
        "rows_at_once": draw(st.sampled_from([1, 2, 100])),
        "chunk": draw(st.integers(1, 12)),
    }  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(call=masks(), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "cupy"])
def test_any_mask_and_its_gradient(name: str, call: dict[str, Any], seed: int) -> None:
    library, rng = library_of(name), np.random.default_rng(seed)
    q = rng.standard_normal((*call["out_lead"], call["T_q"], 3))
    k, v = (rng.standard_normal((*call["lead"], call["T_k"], 3)) for _ in "kv")
    values = rng.standard_normal(call["shape"])
    if call["boolean"]:
        values = values > -0.3
    full = (*call["out_lead"], call["T_q"], call["T_k"])
    mask = library.array(values)
    if call["view"] == "broadcast":
        mask, values = library.xp.broadcast_to(mask, full), np.broadcast_to(values, full)
    if call["view"] == "reversed" and values.ndim and name != "torch":  # PyTorch has no negative strides
        mask, values = library.xp.flip(mask, axis=0), np.flip(values, 0)
    if call["view"] == "transposed" and values.ndim > 1:
        axes = (*range(values.ndim - 2), values.ndim - 1, values.ndim - 2)
        mask = library.xp.permute_dims(library.array(np.ascontiguousarray(np.transpose(values, axes))), axes)
    argument = "mask" if call["boolean"] else "bias"
    out, weights, _ = dense_attention(q, k, v, **{argument: values}, grouped=call["groups"] > 1)
    with pytest.MonkeyPatch.context() as patch:
        cuts = range(0, int(np.prod(call["lead"])), call["chunk"])
        patch.setattr(
            library.backend, "block_of_scores", lambda rows, keys, itemsize: (call["rows_at_once"], max(1, keys))
        )
        patch.setattr(
            library.backend,
            "chunks",
            lambda count, *_, **__: (
                [slice(a, min(a + call["chunk"], count)) for a in cuts if a < count] or [slice(0, 0)]
            ),
        )
        found, saved = F.attention(
            *(library.array(x) for x in (q, k, v)),
            **{argument: mask},
            grouped=call["groups"] > 1,
            keep_bytes=call["keep_bytes"],
        )
        dout = rng.standard_normal(out.shape)
        grads = () if call["boolean"] else ("bias",)
        gradients = F.attention_backward(saved, library.array(dout), grads=grads)
    np.testing.assert_allclose(library.numpy(found), out, rtol=1e-9, atol=1e-11)
    if call["boolean"]:
        return
    heads_v = np.repeat(v, call["groups"], axis=-3) if call["groups"] > 1 else v
    dweights = dout @ np.swapaxes(heads_v, -1, -2)
    dscores = weights * (dweights - np.sum(weights * dweights, axis=-1, keepdims=True))
    padded = (1,) * (dscores.ndim - values.ndim) + values.shape
    axes = tuple(i for i, n in enumerate(padded) if n == 1)
    expected = np.sum(dscores, axis=axes, keepdims=True).reshape(values.shape)
    np.testing.assert_allclose(library.numpy(gradients[3]), expected, rtol=1e-8, atol=1e-11)
