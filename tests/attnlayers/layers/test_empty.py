"""Batches without entries, sequences without steps: empty results, and gradients of 0."""

from typing import Any

import numpy as np
import pytest
from cases import CASES, T_DEC, N, T
from conftest import library_of
from dense_attention import dense_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import functional as F
from attnlayers import layers

NAMES = ["numpy", "array_api_strict", "torch", "cupy"]


def emptied(library: Library, x: Any, axis: str) -> Any:
    """x without the entries, the encoder's steps or the decoder's: they tell each other apart by their number."""
    values = library.numpy(x)
    if axis == "N":
        return library.array(values[:0])
    length = T if axis == "T" else T_DEC
    return library.array(values[:, :0]) if values.ndim > 1 and values.shape[1] == length else x


@pytest.mark.parametrize("axis", ["N", "T", "T_dec"])
@pytest.mark.parametrize("case", CASES)
def test_every_layer_without(library: Library, case: str, axis: str) -> None:
    d = Draw(library)
    layer, inputs = CASES[case](d)
    if "stateful" in case and axis == "N":
        layer.reset_state()
    given = [emptied(library, x, axis) for x in inputs]
    if all(a is b for a, b in zip(given, inputs, strict=True)):
        pytest.skip("has no such axis")
    plain = layer.forward(*inputs)
    plain = plain if isinstance(plain, tuple) else (plain,)
    layer, _ = CASES[case](Draw(library))
    if "stateful" in case and axis == "N":
        layer.reset_state()
    outs = layer.forward(*given)
    outs = outs if isinstance(outs, tuple) else (outs,)
    douts = [d(*out.shape) for out in outs]
    returned = layer.backward(*douts)
    gradients = [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]
    assert [out.ndim for out in outs] == [out.ndim for out in plain]
    floats = [x for x in given if "float" in str(x.dtype)]
    assert [tuple(g.shape) for g in gradients] == [tuple(x.shape) for x in floats]
    results = [library.numpy(x) for x in (*outs, *gradients, *layer.grads)]
    assert all(np.isfinite(x).all() for x in results)
    if axis == "N" or len(given) == 1:
        assert all((library.numpy(grad) == 0).all() for grad in layer.grads)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_attention_without_anything_with_any_option(name: str, data: st.DataObject) -> None:
    library, draw = library_of(name), data.draw
    lead = tuple(draw(st.lists(st.sampled_from([0, 2]), min_size=1, max_size=3)))
    groups = draw(st.sampled_from([1, 2])) if lead[-1] else 1
    T_q, T_k, D, D_v = (draw(st.sampled_from([0, 3])) for _ in range(4))
    out_lead = (*lead[:-1], lead[-1] * groups)
    batched = len(lead) > (groups > 1)
    options: dict[str, Any] = {"grouped": groups > 1, "softcap": draw(st.sampled_from([None, 2.0, np.inf]))}
    if draw(st.booleans()):
        options["window"] = draw(st.sampled_from([(None, 0), (1, 0), (1, None)]))
        choices: list[Any] = ["start", "end", 1]
        options["query_start"] = draw(st.sampled_from([*choices, [0] * lead[0]] if batched else choices))
    if batched and draw(st.booleans()):
        options["key_lengths"] = draw(st.lists(st.integers(0, T_k), min_size=lead[0], max_size=lead[0]))
    elif draw(st.booleans()):
        options["query_offsets"] = [0, draw(st.integers(0, T_q)), T_q]
        options["key_offsets"] = [0, draw(st.integers(0, T_k)), T_k]
        if isinstance(options.get("query_start"), list):
            options["query_start"] = [0, 0]
    rng = np.random.default_rng(0)
    shapes = {"q": (*out_lead, T_q, D), "k": (*lead, T_k, D), "v": (*lead, T_k, D_v)}
    arrays = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    for key in ("mask", "bias"):
        if draw(st.booleans()):
            drawn = rng.standard_normal((*out_lead, T_q, T_k)[draw(st.integers(0, len(lead) + 2)) :])
            arrays[key] = drawn > 0 if key == "mask" else drawn
    if draw(st.booleans()):
        arrays["sinks"] = rng.standard_normal(out_lead[-1:])
    keep_bytes = draw(st.sampled_from([0, 2**20]))
    if D == 0:
        options["scale"] = 1.0
    ours = {key: library.array(x) for key, x in arrays.items()}
    out, lse, saved = F.attention(**ours, **options, keep_bytes=keep_bytes, return_lse=True)
    also = [key for key in ("bias", "sinks") if key in arrays]
    gradients = F.attention_backward(saved, library.array(np.ones(out.shape)), grads=also)
    assert tuple(out.shape) == (*out_lead, T_q, D_v)
    assert tuple(lse.shape) == (*out_lead, T_q)
    for key, gradient in zip(["q", "k", "v", *also], gradients, strict=True):
        assert tuple(gradient.shape) == arrays[key].shape
        assert np.isfinite(library.numpy(gradient)).all()
    if 0 not in lead:
        if options["softcap"] == np.inf:
            options["softcap"] = None
        expected, _, _ = dense_attention(**arrays, **options)
        np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_no_entries_with_lengths_and_starts(library: Library, keep_bytes: int) -> None:
    q, k = library.array(np.zeros((0, 2, 3))), library.array(np.zeros((0, 4, 3)))
    for options in (
        {"key_lengths": []},
        {"key_lengths": library.array(np.zeros(0, np.int64))},
        {"causal": True, "query_start": []},
        {"window": (1, None), "query_start": np.zeros(0, int), "key_lengths": ()},
        {"causal": True, "query_start": "end", "key_lengths": []},
    ):
        out, saved = F.attention(q, k, k, keep_bytes=keep_bytes, **options)
        shapes = [tuple(x.shape) for x in (out, *F.attention_backward(saved, out))]
        assert shapes == [(0, 2, 3), (0, 2, 3), (0, 4, 3), (0, 4, 3)]


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_a_cap_of_infinity_is_none(library: Library, keep_bytes: int) -> None:
    d = Draw(library)
    q, k, v, dout = d(2, 3, 4), d(2, 5, 4), d(2, 5, 4), d(2, 3, 4)
    results = []
    for softcap in (None, np.inf, float("inf"), np.float32("inf")):
        out, saved = F.attention(q, k, v, softcap=softcap, keep_bytes=keep_bytes)
        results.append([library.numpy(x) for x in (out, *F.attention_backward(saved, dout))])
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_one_seed_gives_dropout_another(library: Library) -> None:
    del library
    one, two = (layers.MultiHeadAttention.create(8, 2, dropout=0.5, seed=seed) for seed in (1, 2))
    assert one.seed != two.seed
    assert one.seed not in (1, 2)


@pytest.mark.parametrize("shape", [(N, 0, 7), (0, T, 7), (0, 0, 7)])
def test_two_readers_of_nothing(library: Library, shape: tuple[int, ...]) -> None:
    d = Draw(library)
    layer = layers.TimeBiLSTM(*(d(*s) for s in ((7, 8), (2, 8), (8,), (7, 8), (2, 8), (8,))))
    for mask in (None, d.mask(*shape[:2])):
        out = layer.forward(d(*shape), mask)
        assert tuple(out.shape) == (*shape[:2], 4)
        assert tuple(layer.backward(out).shape) == shape
