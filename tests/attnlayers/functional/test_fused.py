"""A library's own attention: which calls it is offered, what it is told, and what happens where it declines.

The library is NumPy, with an attention of its own for as long as a test lasts.
"""

from typing import Any

import numpy as np
import pytest
from dense_attention import dense_attention
from support import Library

from attnbackends import AttentionCall, OwnAttention, get_backend
from attnlayers import TimeAttention
from attnlayers import functional as F
from attnlayers.functional._attention import pair

RNG = np.random.default_rng(3)
N, T_Q, T_K, D, D_V = 2, 5, 7, 3, 11


class Result(OwnAttention):
    """What `Own` keeps."""

    def __init__(self, own: "Own", call: AttentionCall) -> None:
        self.own, self.call = own, call
        scores = own.scores(call)
        top = scores.max(axis=-1, keepdims=True)
        shift = np.where(np.isneginf(top), 0, top)
        weights = np.exp(scores - shift)
        total = weights.sum(axis=-1, keepdims=True)
        self.weights = weights / np.where(total == 0, 1, total)
        with np.errstate(divide="ignore"):
            self.lse = shift + np.log(total)
        self.out = self.weights @ (call.k if call.v is None else call.v)

    def backward(
        self, dout: np.ndarray, dlse: np.ndarray | None, dsinks: np.ndarray | None = None
    ) -> tuple[Any, Any, Any] | None:
        self.own.backward_calls += 1
        if not self.own.takes_backward:
            return None
        call, weights = self.call, self.weights
        dweights = dout @ np.swapaxes(call.k if call.v is None else call.v, 1, 2)
        delta = (weights * dweights).sum(axis=-1, keepdims=True) - (0 if dlse is None else dlse)
        dscores = weights * (dweights - delta)
        dq = call.scale * dscores @ call.k
        dk = call.scale * np.swapaxes(dscores, 1, 2) @ call.q
        dv = np.swapaxes(weights, 1, 2) @ dout
        return (dq, dk + dv, None) if call.v is None else (dq, dk, dv)


class Own:
    """Attention the plain way, from what a library is told and nothing else."""

    def __init__(self, takes: bool = True, takes_backward: bool = True) -> None:
        self.takes, self.takes_backward = takes, takes_backward
        self.calls: list[AttentionCall] = []
        self.backward_calls = 0

    def scores(self, call: AttentionCall) -> np.ndarray:
        B, R, _ = call.q.shape
        T_k, visible = call.k.shape[1], call.visibility

        def of_each(numbers: np.ndarray) -> np.ndarray:
            return numbers if len(numbers) == 1 else np.repeat(numbers, visible.entries_each)

        position = of_each(visible.start)[:, None, None] + (np.arange(R) % visible.T_q)[None, :, None]
        keys = np.arange(T_k)[None, None, :]
        seen = np.ones((B, R, T_k), dtype=bool)
        if visible.left is not None:
            seen &= keys >= position - visible.left
        if visible.right is not None:
            seen &= keys <= position + visible.right
        if visible.lengths is not None:
            seen &= keys < of_each(visible.lengths)[:, None, None]
        if call.mask is not None:
            mask = call.mask.flat()
            seen &= np.tile(mask, (1, visible.groups if mask.shape[1] == visible.T_q else 1, 1))
        return np.where(seen, call.scale * call.q @ np.swapaxes(call.k, 1, 2), -np.inf)

    def attention(self, call: AttentionCall) -> OwnAttention | None:
        further = call.bias is None and call.softcap is None and call.sinks is None and not call.dropout
        if not further or call.visibility.offsets is not None or 0 in call.k.shape:
            return None
        self.calls.append(call)
        return Result(self, call) if self.takes else None


def install(monkeypatch: pytest.MonkeyPatch, own: Own) -> Own:
    """Every call takes this way: none is small."""
    monkeypatch.setattr(pair, "PLAIN_WORK", 0)
    monkeypatch.setattr(get_backend("numpy"), "attention", own.attention)
    return own


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask of keys": {"mask": RNG.random((N, 1, T_K)) < 0.6},
    "mask of pairs": {"mask": RNG.random((T_Q, T_K)) < 0.6},
    "causal at the end": {"causal": True, "query_start": "end"},
    "window, starts": {"window": (2, 1), "query_start": [3, -2]},
    "lengths": {"key_lengths": [4, 0]},
    "lengths, causal at their ends": {"key_lengths": [4, 7], "causal": True, "query_start": "end"},
    "kept little": {"keep_bytes": 0},
}


@pytest.mark.parametrize("heads", [0, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_same_results(monkeypatch: pytest.MonkeyPatch, name: str, heads: int) -> None:
    options, lead = OPTIONS[name], (N, heads) if heads else (N,)
    if heads and "mask" in options:
        options = options | {"mask": options["mask"][..., None, :, :]}
    q, k, v, dout = draw(*lead, T_Q, D), draw(*lead, T_K, D), draw(*lead, T_K, D_V), draw(*lead, T_Q, D_V)
    dlse = draw(*lead, T_Q)
    out, lse, saved = F.attention(q, k, v, return_lse=True, **options)
    expected = [out, lse, saved.weights, *F.attention_backward(saved, dout, dlse=dlse)]
    own = install(monkeypatch, Own())
    out, lse, saved = F.attention(q, k, v, return_lse=True, **options)
    found = [out, lse, saved.weights, *F.attention_backward(saved, dout, dlse=dlse)]
    assert (len(own.calls), own.backward_calls) == (1, 1)
    assert isinstance(saved.result, Result)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("of_each_head", [False, True])
def test_heads_that_share_keys(monkeypatch: pytest.MonkeyPatch, of_each_head: bool) -> None:
    q, k, v = draw(N, 6, T_Q, D), draw(N, 2, T_K, D), draw(N, 2, T_K, D_V)
    mask = RNG.random((N, 6 if of_each_head else 1, T_Q, T_K)) < 0.6
    own = install(monkeypatch, Own())
    out, saved = F.attention(q, k, v, mask=mask, grouped=True, window=(None, 3), query_start=1)
    [call] = own.calls
    assert (call.visibility.groups, call.visibility.T_q, call.q.shape) == (3, T_Q, (2 * N, 3 * T_Q, D))
    expected, weights, _ = dense_attention(q, k, v, mask=mask, grouped=True, window=(None, 3), query_start=1)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(saved.weights, weights, atol=1e-12)


@pytest.mark.parametrize(("takes", "takes_backward"), [(False, False), (True, False)])
def test_where_the_library_declines(monkeypatch: pytest.MonkeyPatch, takes: bool, takes_backward: bool) -> None:
    q, k, dout = draw(N, T_Q, D), draw(N, T_K, D), draw(N, T_Q, D)
    out, saved = F.attention(q, k)
    expected = [out, *F.attention_backward(saved, dout)]
    own = install(monkeypatch, Own(takes, takes_backward))
    out, saved = F.attention(q, k)
    found = [out, *F.attention_backward(saved, dout)]
    assert (len(own.calls), own.backward_calls) == (1, int(takes))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


NOT_TAKEN: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 1.0},
    "sinks": {"sinks": np.zeros(())},
    "dropout": {"dropout": 0.5, "seed": 0},
    "bias": {"bias": np.zeros((T_Q, T_K))},
    "packed": {"query_offsets": [0, 2, T_Q], "key_offsets": [0, 3, T_K]},
    "weights asked for": {"return_weights": True},
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_calls_that_it_does_not_take(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    own = install(monkeypatch, Own())
    out, *_, saved = F.attention(draw(N, T_Q, D), draw(N, T_K, D), draw(N, T_K, D_V), **NOT_TAKEN[name])
    F.attention_backward(saved, np.ones_like(out))
    F.attention(draw(N, T_Q, D), draw(N, 0, D), draw(N, 0, D_V))
    _, saved = F.attention_weights(draw(N, T_Q, D), draw(N, T_K, D))
    F.attention_weights_backward(saved, draw(N, T_Q, T_K))
    assert (own.calls, own.backward_calls) == ([], 0)


def test_the_output_may_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What backward reads is its own copy."""
    hs, h, dout = draw(N, T_K, D), draw(N, T_Q, D), draw(N, T_Q, D)
    layer = TimeAttention()
    layer.forward(hs, h)
    expected = layer.backward(dout)
    install(monkeypatch, Own(takes_backward=False))
    layer.forward(hs, h)[...] = np.nan
    for a, b in zip(layer.backward(dout), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


LONG: dict[str, dict[str, Any]] = {
    "book": {"shape": (3, 10, 29, 256), "scale": 0.1},
    "short": {"shape": (2, 64, 64, 256)},
    "long": {"shape": (2, 331, 397, 61)},
    "long, wide": {"shape": (1, 131, 521, 127)},
    "long, causal": {"shape": (2, 401, 401, 64), "causal": True},
    "long, window": {"shape": (2, 331, 397, 31), "window": (70, 9), "query_start": [40, -50]},
    "long, lengths": {"shape": (2, 331, 397, 64), "key_lengths": [397, 130]},
    "long, mask": {"shape": (2, 331, 397, 64), "mask": RNG.random((2, 331, 397)) < 0.3},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LONG)
def test_every_library_against_float64(library: Library, name: str, dtype: str) -> None:
    """Sizes at which CUDA takes each of its kernels; the reference is NumPy with weights that are kept."""
    options = dict(LONG[name])
    B, T_q, T_k, D = options.pop("shape")
    host = [draw(B, T, D) for T in (T_q, T_k, T_k, T_q)]
    if dtype == "float32":
        host = [x.astype("float32").astype("float64") for x in host]
    *_, lse, saved = F.attention(*host[:3], return_weights=True, return_lse=True, **options)
    expected = [
        lse,
        saved.weights @ host[2],
        *F.attention_backward(saved, host[3], dlse=np.where(np.isneginf(lse), 0, 0.5)),
    ]
    if "mask" in options:
        options["mask"] = library.array(options["mask"])
    q, k, v, dout = (library.array(x, dtype) for x in host)
    out, lse, saved = F.attention(q, k, v, return_lse=True, **options)
    dlse = library.array(np.where(np.isneginf(library.numpy(lse)), 0, 0.5), dtype)
    found = [lse, out, *F.attention_backward(saved, dout, dlse=dlse)]
    tolerance = 3e-5 if dtype == "float32" else 1e-11
    for own, exact in zip(found, expected, strict=True):
        size = max(1.0, float(np.max(np.abs(exact), where=np.isfinite(exact), initial=0)))
        np.testing.assert_allclose(library.numpy(own), exact, rtol=tolerance, atol=tolerance * size)
