"""Explanations: every number against plain loops in float64, and against what the layer itself returned."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

import attnlayers
from attnlayers import Attention, AttentionWeight, MultiHeadAttention, Softmax, TimeAttention, WeightSum, explain

CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
SIZES = st.tuples(*[st.integers(1, 4)] * 4)


def names(table: Any) -> list[str]:
    return [row.name for row in table]


def same(table: Any, **expected: np.ndarray) -> None:
    shapes = {row.name: row.shape for row in table}
    for name, value in expected.items():
        np.testing.assert_allclose(table[name], value, err_msg=name, **CLOSE)
        assert shapes[name] == table[name].shape == value.shape, name


def shapes_are_those_of_the_numbers(table: Any) -> None:
    for row in table:
        assert table[row.name].shape == row.shape, row.name


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_weight_sum(sizes: tuple[int, ...], seed: int) -> None:
    rng, (N, T, H, _) = np.random.default_rng(seed), sizes
    hs, a, dc = (rng.standard_normal(shape) for shape in ((N, T, H), (N, T), (N, H)))
    layer = WeightSum()
    c = layer.forward(hs, a)
    before = explain(layer)
    assert names(before) == ["hs", "a", "t", "c"]
    dhs, da = layer.backward(dc)
    table = explain(layer)
    same(table, hs=hs, a=a, dc=dc, c=c, dhs=dhs, da=da)
    t, dt = (np.empty((N, T, H)) for _ in range(2))
    for n, j, i in np.ndindex(N, T, H):
        t[n, j, i] = hs[n, j, i] * a[n, j]
        dt[n, j, i] = dc[n, i]
    same(table, t=t, dt=dt)
    shapes_are_those_of_the_numbers(table)


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, masked=st.booleans(), seed=st.integers(0, 99))
def test_time_attention(sizes: tuple[int, ...], masked: bool, seed: int) -> None:
    rng, (N, T, H, U) = np.random.default_rng(seed), sizes
    hs, dec, dout = (rng.standard_normal(shape) for shape in ((N, T, H), (N, U, H), (N, U, H)))
    mask = rng.random((N, T)) < 0.6
    layer = TimeAttention()
    layer.forward(hs, dec, mask if masked else None)
    dhs_enc, dhs_dec = layer.backward(dout)
    table = explain(layer)
    seen = np.broadcast_to((mask if masked else np.ones((N, T), bool))[:, None, :], (N, U, T))
    found = [reference.attention(dec[n], hs[n], hs[n], 1.0, seen[n], dout[n]) for n in range(N)]
    out, a, dq, dk, dv = (np.stack(part) for part in zip(*found, strict=True))
    same(table, hs_enc=hs, hs_dec=dec, a=a, out=out, dhs_dec=dq, dhs_enc=dk + dv)
    same(table, **{"dhs_enc of the sum": dv, "dhs_enc of the weights": dk})
    same(table, dhs_enc=dhs_enc, dhs_dec=dhs_dec)
    s, da, ds = (np.zeros((N, U, T)) for _ in range(3))
    for n, u, t in np.ndindex(N, U, T):
        s[n, u, t] = sum(dec[n, u, h] * hs[n, t, h] for h in range(H))
        da[n, u, t] = sum(dout[n, u, h] * hs[n, t, h] for h in range(H))
    for n, u, t in np.ndindex(N, U, T):
        ds[n, u, t] = a[n, u, t] * (da[n, u, t] - sum(a[n, u, j] * da[n, u, j] for j in range(T)))
    same(table, s=s, da=da, ds=ds)
    e = np.zeros((N, U, T))
    for n, u, t in np.ndindex(N, U, T):
        if seen[n, u, t]:
            e[n, u, t] = np.exp(s[n, u, t] - max(s[n, u, j] for j in range(T) if seen[n, u, j]))
    same(table, e=e, z=e.sum(axis=2, keepdims=True))
    assert ("mask" in names(table)) == masked
    shapes_are_those_of_the_numbers(table)


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, masked=st.booleans(), seed=st.integers(0, 99))
def test_one_step(sizes: tuple[int, ...], masked: bool, seed: int) -> None:
    rng, (N, T, H, _) = np.random.default_rng(seed), sizes
    hs, h, dc, da = (rng.standard_normal(shape) for shape in ((N, T, H), (N, H), (N, H), (N, T)))
    mask = rng.random((N, T)) < 0.6 if masked else None
    layer = Attention()
    c = layer.forward(hs, h, mask)
    dhs, dh = layer.backward(dc)
    table = explain(layer)
    assert table.title == "Attention"
    same(table, hs=hs, h=h, c=c, a=np.asarray(layer.attention_weight), dc=dc, dhs=dhs, dh=dh)
    shapes_are_those_of_the_numbers(table)
    weight = AttentionWeight()
    a = weight.forward(hs, h, mask)
    dhs, dh = weight.backward(da)
    table = explain(weight)
    same(table, hs=hs, h=h, a=a, da=da, dhs=dhs, dh=dh)
    shapes_are_those_of_the_numbers(table)


@settings(max_examples=40, deadline=None)
@given(
    rotary=st.sampled_from([None, "half", "interleaved"]),
    softcap=st.sampled_from([None, 1.5]),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    how=st.sampled_from(["plain", "causal", "mask", "bias", "cross"]),
    seed=st.integers(0, 99),
)
def test_several_heads(rotary: str | None, softcap: float | None, groups: int, bias: bool, how: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rotary = None if how == "cross" else rotary
    options: dict[str, Any] = {"rotary": rotary, "softcap": softcap, "use_bias": bias, "dtype": "float64"}
    layer = MultiHeadAttention.create(
        16, 4, key_heads=4 // groups, context_size=5 if how == "cross" else None, seed=seed, **options
    )
    x, context, dout = (rng.standard_normal(shape) for shape in ((2, 3, 16), (2, 7, 5), (2, 3, 16)))
    given_: dict[str, Any] = {
        "plain": {}, "causal": {"causal": True}, "mask": {"mask": np.arange(3)[None, :] < np.array([[2], [3]])},
        "bias": {"bias": rng.standard_normal((3, 3))}, "cross": {"context": context},
    }[how]  # fmt: skip
    out = layer.forward(x, **given_)
    back = layer.backward(dout)
    table = explain(layer)
    same(table, x=x, out=out, dout=dout, a=np.asarray(layer.attention_weights))
    if how == "cross":
        same(table, context=context, dx=back[0], dcontext=back[1])
    else:
        same(table, dx=back)
    shapes_are_those_of_the_numbers(table)
    if softcap is None and how != "bias" and not rotary:
        each = {"q": 1, "k": groups, "v": groups, "dheads": 1}
        heads = [np.repeat(table[name], count, axis=1) for name, count in each.items()]
        seen = {"causal": np.tri(3, dtype=bool)}.get(how, np.ones((3, heads[1].shape[2]), bool))
        for n, h in np.ndindex(2, 4):
            own = np.broadcast_to(given_["mask"][n], (3, 3)) if how == "mask" else seen
            q, k, v, d = (part[n, h] for part in heads)
            o, a, dq, _, _ = reference.attention(q, k, v, 0.5, own, d)
            np.testing.assert_allclose(table["heads"][n, h], o, **CLOSE)
            np.testing.assert_allclose(table["a"][n, h], a, **CLOSE)
            np.testing.assert_allclose(table["dq"][n, h], dq, **CLOSE)


def test_every_library(library: Library) -> None:
    rng = np.random.default_rng(0)
    hs, dec, dout = (rng.standard_normal(shape) for shape in ((2, 5, 3), (2, 4, 3), (2, 4, 3)))
    layer, host = TimeAttention(), TimeAttention()
    layer.forward(library.array(hs), library.array(dec))
    layer.backward(library.array(dout))
    host.forward(hs, dec)
    host.backward(dout)
    for row in explain(host):
        np.testing.assert_allclose(explain(layer)[row.name], explain(host)[row.name], **CLOSE)


def test_text_and_html() -> None:
    layer = TimeAttention()
    layer.forward(np.ones((1, 2, 2)), np.ones((1, 1, 2)))
    assert str(explain(layer)).splitlines()[-1] == "There was no backward yet."
    layer.backward(np.full((1, 1, 2), 0.5))
    text, page = str(explain(layer)), explain(layer)._repr_html_()
    assert text.splitlines()[:4] == [
        "TimeAttention",
        "hs_enc                  given                  (1, 2, 2)",
        "    [[[1. 1.]",
        "      [1. 1.]]]",
    ]
    assert repr(explain(layer)) == text
    assert "    [[[0.5 0.5]]]" in text
    assert page.count("<tr>") == 1 + len(list(explain(layer)))
    assert "<code>hs_dec · hs_enc</code>" in page


def test_many_numbers_are_shapes_alone() -> None:
    layer = TimeAttention()
    for _ in range(2):
        layer.forward(np.ones((2, 50, 30)), np.ones((2, 70, 30)))
        layer.backward(np.ones((2, 70, 30)))
    text = str(explain(layer))
    assert "[[" not in text
    assert text.splitlines()[-1] == "The incoming gradient is large and was not kept: shapes alone."
    assert ["dhs_dec", "ds", "·", "hs_enc", "(2,", "70,", "30)"] in [line.split() for line in text.splitlines()]
    with pytest.raises(KeyError, match="da: its numbers were not kept"):
        explain(layer)["da"]
    with pytest.raises(KeyError, match="b: there are hs_enc, hs_dec, s"):
        explain(layer)["b"]


def test_a_new_forward_forgets_the_gradient() -> None:
    layers: list[Any] = [WeightSum(), AttentionWeight(), Attention(), TimeAttention(), MultiHeadAttention.create(2, 1)]
    one = np.ones((1, 3, 2), np.float32)
    second = [np.ones((1, 3), np.float32), one[:, 0], one[:, 0], one]
    for layer, further in zip(layers, [*[(s,) for s in second], ()], strict=True):
        out = layer.forward(one, *further)
        layer.backward(out)
        assert explain(layer).note == ""
        layer.forward(one, *further)
        assert explain(layer).note == "There was no backward yet."


def test_what_cannot_be_explained_is_one_line() -> None:
    with pytest.raises(RuntimeError, match=r"^TimeAttention has nothing to explain: call forward first$"):
        explain(TimeAttention())
    with pytest.raises(TypeError, match=r"^`layer` must be one of WeightSum, .*, MultiHeadAttention, got Softmax$"):
        explain(Softmax())
    model = attnlayers.models.AttentionSeq2seq(5, 3, 4)
    with pytest.raises(TypeError, match=r"got AttentionDecoder: try explain\(layer.layers\['attention'\]\)$"):
        explain(model.decoder)
    layer = MultiHeadAttention.create(4, 2, dropout=0.5)
    layer.forward(np.ones((1, 3, 4), np.float32))
    with pytest.raises(ValueError, match=r"this layer drops: layer\.training = False$"):
        explain(layer)
