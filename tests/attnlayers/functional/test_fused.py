"""A library's own attention: which calls it is offered, what it is told, and what happens where it declines.

The library is NumPy, with an attention of its own for as long as a test lasts.
"""

from typing import Any

import numpy as np
import pytest
from dense_attention import dense_attention
from support import Library

from attnbackends import AttentionCall, get_backend
from attnlayers import TimeAttention
from attnlayers import functional as F

RNG = np.random.default_rng(3)
N, T_Q, T_K, D, D_V = 2, 5, 7, 3, 11


class Own:
    """Attention the plain way, from what the hook is told and nothing else."""

    def __init__(self, takes: bool = True, takes_backward: bool = True, reads_out: bool = True) -> None:
        self.takes, self.takes_backward, self.reads_out = takes, takes_backward, reads_out
        self.calls: list[AttentionCall] = []
        self.backward_calls = 0

    def scores(self, call: AttentionCall) -> np.ndarray:
        B, R, _ = call.q.shape
        T_k = call.k.shape[1]
        start = np.broadcast_to(call.start, (B,))[:, None, None]
        position = start + (np.arange(R) % call.T_q)[None, :, None]
        keys = np.arange(T_k)[None, None, :]
        seen = np.ones((B, R, T_k), dtype=bool)
        if call.left is not None:
            seen &= keys >= position - call.left
        if call.right is not None:
            seen &= keys <= position + call.right
        if call.lengths is not None:
            seen &= keys < call.lengths[:, None, None]
        if call.mask is not None:
            tiled = call.groups if call.mask.shape[1] == call.T_q else 1
            seen &= np.tile(call.mask, (1, tiled, 1))
        return np.where(seen, call.scale * call.q @ np.swapaxes(call.k, 1, 2), -np.inf)

    def attention_backward_reads_out(self, call: AttentionCall) -> bool:
        return self.reads_out

    def attention(self, call: AttentionCall, out: np.ndarray, stats: np.ndarray, kept: Any = None) -> bool:
        self.calls.append(call)
        if self.takes:
            assert out.dtype == call.q.dtype
            scores = self.scores(call)
            top = scores.max(axis=-1, keepdims=True)
            stats[0] = np.where(np.isneginf(top), 0, top)
            weights = np.exp(scores - stats[0])
            total = weights.sum(axis=-1, keepdims=True)
            stats[1] = np.where(total == 0, 0, 1 / np.where(total == 0, 1, total))
            out[...] = stats[1] * (weights @ call.v)
            assert (kept is not None) == self.reads_out
            if kept is not None:
                kept[...] = out
        return self.takes

    def attention_backward(
        self, call: AttentionCall, out: Any, stats: Any, dout: Any, dlse: Any, dq: Any, dk: Any, dv: Any
    ) -> bool:
        self.backward_calls += 1
        if self.takes_backward:
            assert (out is not None) == self.reads_out
            weights = np.exp(self.scores(call) - stats[0]) * stats[1]
            dweights = dout @ np.swapaxes(call.v, 1, 2)
            delta = (weights * dweights).sum(axis=-1, keepdims=True) - (0 if dlse is None else dlse)
            dscores = weights * (dweights - delta)
            dq[...] = call.scale * dscores @ call.k
            dk[...] = call.scale * np.swapaxes(dscores, 1, 2) @ call.q
            into_values = np.swapaxes(weights, 1, 2) @ dout
            if dv is None:
                dk += into_values
            else:
                dv[...] = into_values
        return self.takes_backward


def install(monkeypatch: pytest.MonkeyPatch, own: Own) -> Own:
    monkeypatch.setattr(get_backend("numpy"), "has_whole_attention", True)
    for name in ("attention", "attention_backward", "attention_backward_reads_out"):
        monkeypatch.setattr(get_backend("numpy"), name, getattr(own, name))
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
@pytest.mark.parametrize("reads_out", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_same_results(monkeypatch: pytest.MonkeyPatch, name: str, reads_out: bool, heads: int) -> None:
    options, lead = OPTIONS[name], (N, heads) if heads else (N,)
    if heads and "mask" in options:
        options = options | {"mask": options["mask"][..., None, :, :]}
    q, k, v, dout = draw(*lead, T_Q, D), draw(*lead, T_K, D), draw(*lead, T_K, D_V), draw(*lead, T_Q, D_V)
    dlse = draw(*lead, T_Q)
    out, lse, saved = F.attention(q, k, v, return_lse=True, **options)
    expected = [out, lse, saved.weights, *F.attention_backward(saved, dout, dlse=dlse)]
    own = install(monkeypatch, Own(reads_out=reads_out))
    out, lse, saved = F.attention(q, k, v, return_lse=True, **options)
    found = [out, lse, saved.weights, *F.attention_backward(saved, dout, dlse=dlse)]
    assert (len(own.calls), own.backward_calls) == (1, 1)
    assert saved.core.weights is None
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("of_each_head", [False, True])
def test_heads_that_share_keys(monkeypatch: pytest.MonkeyPatch, of_each_head: bool) -> None:
    q, k, v = draw(N, 6, T_Q, D), draw(N, 2, T_K, D), draw(N, 2, T_K, D_V)
    mask = RNG.random((N, 6 if of_each_head else 1, T_Q, T_K)) < 0.6
    own = install(monkeypatch, Own())
    out, saved = F.attention(q, k, v, mask=mask, grouped=True, window=(None, 3), query_start=1)
    [call] = own.calls
    assert (call.groups, call.T_q, call.q.shape) == (3, T_Q, (2 * N, 3 * T_Q, D))
    expected, weights, _ = dense_attention(q, k, v, mask=mask, grouped=True, window=(None, 3), query_start=1)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(saved.weights, weights, atol=1e-12)


@pytest.mark.parametrize(("takes", "takes_backward"), [(False, False), (True, False)])
def test_where_the_library_declines(monkeypatch: pytest.MonkeyPatch, takes: bool, takes_backward: bool) -> None:
    q, k, dout = draw(N, T_Q, D), draw(N, T_K, D), draw(N, T_Q, D)
    out, saved = F.attention(q, k, k)
    expected = [out, *F.attention_backward(saved, dout)]
    own = install(monkeypatch, Own(takes, takes_backward))
    out, saved = F.attention(q, k, k)
    found = [out, *F.attention_backward(saved, dout)]
    assert (len(own.calls), own.backward_calls) == (1, int(takes))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


NOT_OFFERED: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 1.0},
    "sinks": {"sinks": np.zeros(())},
    "dropout": {"dropout": 0.5, "seed": 0},
    "additive mask": {"mask": np.zeros((T_Q, T_K))},
    "packed": {"offsets": ([0, 2, T_Q], [0, 3, T_K])},
    "weights asked for": {"return_weights": True},
}


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_calls_that_it_is_not_offered(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    own = install(monkeypatch, Own())
    out, *_, saved = F.attention(draw(N, T_Q, D), draw(N, T_K, D), draw(N, T_K, D_V), **NOT_OFFERED[name])
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
