"""Attention's CUDA kernels: results against float64, which kernel serves which call, and in how many launches."""

from typing import Any

import numpy as np
import pytest
from dense_attention import dense_gradients
from support import Library

from attnbackends._cuda.attention import TiledKernel
from attnbackends._cuda.plans import CudaAttention
from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(5)
NAN = np.nan
SMALL = ["attention_small", "attention_small_backward"]
TILED = ["attention_tiled", "attention_tiled_backward"]


@pytest.fixture
def only_tiles(library: Library, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sequences go to the kernels for long ones, too."""
    monkeypatch.setattr(CudaAttention, "KERNELS", (TiledKernel,))
    monkeypatch.setattr(library.backend, "_attention_kernels", CudaAttention(library.backend._kernels))
    monkeypatch.setattr(library.backend, "_weighted", None)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check(
    library: Library,
    launched: list[str],
    dtype: str,
    kernels: list[str],
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    shared: bool = False,
    lse: bool = False,
    **options: Any,
) -> None:
    """Hold output, log-sum-exp and gradients against float64, for a gradient that is a part of a wider array."""
    same, wide = v is k, draw(*q.shape[:-1], 2 * v.shape[-1])
    q, k, v, wide, dlse = (x.astype(dtype) for x in (q, k, v, wide, draw(*q.shape[:-1]) * lse))
    own_q, own_k = library.array(q), library.array(k)
    own_v = None if shared else own_k if same else library.array(v)
    given = {name: library.array(x) if name == "mask" else x for name, x in options.items()}
    out, logs, saved = F.attention(own_q, own_k, own_v, return_lse=True, **given)
    further = {"dlse": library.array(dlse)} if lse else {}
    dout = library.array(wide)[..., : v.shape[-1]]
    found = [out, logs, *F.attention_backward(saved, dout, **further)]
    assert launched == kernels
    exact = dense_gradients(q, k, v, wide[..., : v.shape[-1]], dlse, shared=shared, **options)
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    largest = max(float(np.max(np.abs(x))) for x in (q, k, v))
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        assert one.dtype == dtype
        size = max(largest, float(np.max(np.abs(other[np.isfinite(other)]), initial=0)))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * size)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal from the start": {"causal": True, "query_start": "start"},
    "causal to the end": {"causal": True, "query_start": "end"},
    "window": {"window": (2, 1), "query_start": "start"},
    "window far on": {"window": (3, 0), "query_start": 3},
    "window of all keys, from far before": {"window": (None, 7), "query_start": -9},
    "window of all keys, from far behind": {"window": (8, None), "query_start": 12},
    "window with an end, from as far as may be": {"window": (None, 2**28), "query_start": -(2**28)},
    "window with a beginning, from as far as may be": {"window": (2**28, None), "query_start": 2**28},
    "lengths": {"key_lengths": [4, 0, 7]},
    "lengths, causal, starts": {"key_lengths": [4, 7, 5], "causal": True, "query_start": [2, -3, 1]},
    "mask of keys": {"mask": RNG.random((3, 1, 7)) < 0.5},
    "mask of pairs": {"mask": RNG.random((5, 7)) < 0.5},
    "mask of rows": {"mask": RNG.random((3, 5, 1)) < 0.5},
    "mask of all, causal": {"mask": RNG.random((3, 5, 7)) < 0.5, "causal": True, "query_start": "end"},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_small(library: Library, launched: list[str], name: str, lse: bool, dtype: str) -> None:
    check(library, launched, dtype, SMALL, draw(3, 5, 11), draw(3, 7, 11), draw(3, 7, 13), lse=lse, **OPTIONS[name])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (10, 29, 256), (33, 67, 4)])
def test_small_with_keys_for_values(
    library: Library, launched: list[str], shape: tuple[int, int, int], shared: bool
) -> None:
    T_q, T_k, D = shape
    keys = draw(2, T_k, D)
    check(library, launched, "float32", SMALL, draw(2, T_q, D) / D**0.5, keys, keys, shared=shared, scale=1.0)


BIG: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "causal to the end": {"causal": True, "query_start": "end"},
    "window": {"window": (17, 3), "query_start": "start"},
    "window far on": {"window": (70, 0), "query_start": [90, -40]},
    "window of all keys, from far before": {"window": (None, 131), "query_start": -150},
    "lengths": {"key_lengths": [65, 0]},
    "mask of keys": {"mask": RNG.random((2, 1, 131)) < 0.5},
    "mask of pairs": {"mask": RNG.random((67, 131)) < 0.1},
    "mask of all, lengths": {"mask": RNG.random((2, 67, 131)) < 0.5, "key_lengths": [131, 70]},
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.usefixtures("only_tiles")
def test_tiled(library: Library, launched: list[str], name: str) -> None:
    T_q = 131 if name == "causal" else 67
    q, k, v = draw(2, T_q, 37), draw(2, 131, 37), draw(2, 131, 41)
    check(library, launched, "float32", TILED, q, k, v, lse=name in ("plain", "window"), **BIG[name])


@pytest.mark.parametrize("shape", [(64, 64, 64), (16, 129, 128), (130, 61, 97), (17, 1, 2)])
@pytest.mark.usefixtures("only_tiles")
def test_tiled_with_keys_for_values(library: Library, launched: list[str], shape: tuple[int, int, int]) -> None:
    T_q, T_k, D = shape
    keys = draw(1, T_k, D)
    check(library, launched, "float32", TILED, draw(1, T_q, D), keys, keys, shared=True)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_heads_that_share_keys(
    request: pytest.FixtureRequest, library: Library, launched: list[str], each: bool, tiles: bool
) -> None:
    """With a mask for all heads of a group or for each of them; tiles of rows go across heads."""
    T_q, T_k = (29, 71) if tiles else (5, 7)
    if tiles:
        request.getfixturevalue("only_tiles")
    mask = RNG.random((2, 6 if each else 1, T_q, T_k)) < 0.5
    q, k, v = draw(2, 6, T_q, 3), draw(2, 2, T_k, 3), draw(2, 2, T_k, 5)
    options = {"mask": mask, "grouped": True, "window": (None, 2), "query_start": 1}
    check(library, launched, "float32", TILED if tiles else SMALL, q, k, v, **options)


@pytest.mark.parametrize("tiles", [False, True])
def test_what_nobody_sees_may_hold_anything(
    request: pytest.FixtureRequest, library: Library, launched: list[str], tiles: bool
) -> None:
    T_q, T_k = (67, 131) if tiles else (5, 7)
    if tiles:
        request.getfixturevalue("only_tiles")
    mask = RNG.random((2, T_q, T_k)) < 0.8
    mask[:, :, [1, T_k - 2]], mask[:, 3, :] = False, False
    mask[:, :, 2] = np.arange(T_q) % 2 == 0
    q, k, v, dout = (draw(2, T, 3).astype("float32") for T in (T_q, T_k, T_k, T_q))
    found = []
    for bad in (0, NAN):
        k[:, [1, T_k - 2]], v[:, [1, T_k - 2]], q[:, 3] = bad, bad, bad
        out, saved = F.attention(*map(library.array, (q, k, v)), mask=library.array(mask))
        found.append([library.numpy(x) for x in (out, *F.attention_backward(saved, library.array(dout)))])
    assert launched == 2 * (TILED if tiles else SMALL)
    for clean, other in zip(*found, strict=True):
        np.testing.assert_array_equal(clean, other)
        assert np.isfinite(clean).all()
    wide = [np.nan_to_num(x) for x in (q, k, v, dout)]
    out, _, *gradients = dense_gradients(*wide, np.zeros((2, T_q)), shared=False, mask=mask)
    for one, other in zip(found[0], (out, *gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert (found[0][0][:, 3] == 0).all()


@pytest.mark.parametrize("tiles", [False, True])
def test_large_scores(request: pytest.FixtureRequest, library: Library, launched: list[str], tiles: bool) -> None:
    if tiles:
        request.getfixturevalue("only_tiles")
    q, k = 40 * draw(1, 19, 8), 40 * draw(1, 133, 8)
    kernels = TILED if tiles else SMALL
    check(library, launched, "float32", kernels, q.round(), k.round(), draw(1, 133, 8), scale=1.0)


def test_calls_that_no_kernel_serves(monkeypatch: pytest.MonkeyPatch, library: Library, launched: list[str]) -> None:
    monkeypatch.setattr(library.backend, "_weighted", None)
    monkeypatch.setattr(library.backend._kernels, "shared_limit", lambda: 60 * 1024)
    for dtype, T_q, T_k, D in (
        ("float16", 3, 4, 5),
        (
            "float32",
            1,
            2000,
            1030,
        ),  # too many keys for the small kernel, too few rows for tiles, too wide for the third
        ("float64", 600, 600, 8),
        ("float32", 600, 600, 200),
    ):
        out, saved = F.attention(*(library.array(draw(T, D), dtype) for T in (T_q, T_k, T_k)))
        F.attention_backward(saved, library.xp.ones_like(out))
    F.attention(*(library.array(draw(T, 5)) for T in (3, 4, 4)), causal=True, query_start=2**40)
    assert launched == []
    out, saved = F.attention(*(library.array(draw(200, 64), "float32") for _ in range(3)))
    F.attention_backward(saved, library.xp.ones_like(out))
    assert launched == TILED
