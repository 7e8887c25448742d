"""Attention's CUDA kernels on the CPU, thread by thread, launched by the code that launches them on a device."""

from typing import Any

import numpy as np
import pytest
from compiled_kernels import CpuKernels
from dense_attention import dense_attention

from attnbackends import get_backend
from attnbackends._cuda_attention import CudaAttention
from attnlayers import functional as F

RNG = np.random.default_rng(5)
NAN = np.nan


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    return CpuKernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def on_kernels(monkeypatch: pytest.MonkeyPatch, kernels: CpuKernels) -> CpuKernels:
    """NumPy with the attention of CUDA."""
    own, numpy = CudaAttention(np, kernels.launch, kernels.shared_limit), get_backend("numpy")
    monkeypatch.setattr(numpy, "has_whole_attention", True)
    monkeypatch.setattr(numpy, "attention", lambda *given: kernels.on and own.forward(*given))
    monkeypatch.setattr(numpy, "attention_backward", lambda *given: kernels.on and own.backward(*given))
    monkeypatch.setattr(numpy, "attention_backward_reads_out", own.reads_out)
    monkeypatch.setattr(kernels, "launched", [])
    return kernels


@pytest.fixture
def only_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sequences go to the kernels for long ones, too."""
    monkeypatch.setattr(CudaAttention, "_small", lambda *_, **__: 0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check(
    on_kernels: CpuKernels,
    dtype: str,
    launched: list[str],
    q: Any,
    k: Any,
    v: Any,
    shared: bool = False,
    lse: bool = False,
    **options: Any,
) -> None:
    """Output, log-sum-exp and gradients against float64: the same call without the kernels."""
    dout, dlse = draw(*q.shape[:-1], 2 * v.shape[-1]), draw(*q.shape[:-1])
    found = []
    for kind in (dtype, "float64"):
        on_kernels.on = not found
        first, second = q.astype(kind), k.astype(kind)
        third = second if v is k else v.astype(kind)
        out, logs, saved = F.attention(first, second, third, return_lse=True, **options)
        further = {"dlse": dlse.astype(kind)} if lse else {}
        gaps = dout.astype(kind)[..., : v.shape[-1]]
        found.append((out, logs, *F.attention_backward(saved, gaps, shared=shared, **further)))
    on_kernels.on = True
    assert on_kernels.launched == launched
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    given = max(float(np.max(np.abs(x))) for x in (q, k, v))
    for own, exact in zip(*found, strict=True):
        assert own.dtype == dtype
        size = max(given, float(np.max(np.abs(exact[np.isfinite(exact)]), initial=0)))
        np.testing.assert_allclose(own, exact, rtol=tolerance, atol=tolerance * size)


SMALL = ["attention_small", "attention_small_backward"]
TILED = ["attention_tiled", "attention_tiled_backward"]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal from the start": {"causal": True, "query_start": "start"},
    "causal to the end": {"causal": True, "query_start": "end"},
    "window": {"window": (2, 1), "query_start": "start"},
    "window far on": {"window": (3, 0), "query_start": 3},
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
def test_small(on_kernels: CpuKernels, name: str, lse: bool, dtype: str) -> None:
    check(on_kernels, dtype, SMALL, draw(3, 5, 11), draw(3, 7, 11), draw(3, 7, 13), lse=lse, **OPTIONS[name])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (10, 29, 256), (33, 67, 4)])
def test_small_with_keys_for_values(on_kernels: CpuKernels, shape: tuple[int, int, int], shared: bool) -> None:
    T_q, T_k, D = shape
    keys = draw(2, T_k, D)
    check(on_kernels, "float32", SMALL, draw(2, T_q, D) / D**0.5, keys, keys, shared=shared, scale=1.0)


BIG: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "causal to the end": {"causal": True, "query_start": "end"},
    "window": {"window": (17, 3), "query_start": "start"},
    "window far on": {"window": (70, 0), "query_start": [90, -40]},
    "lengths": {"key_lengths": [65, 0]},
    "mask of keys": {"mask": RNG.random((2, 1, 131)) < 0.5},
    "mask of pairs": {"mask": RNG.random((67, 131)) < 0.1},
    "mask of all, lengths": {"mask": RNG.random((2, 67, 131)) < 0.5, "key_lengths": [131, 70]},
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.usefixtures("only_tiles")
def test_tiled(on_kernels: CpuKernels, name: str) -> None:
    T_q = 131 if name == "causal" else 67
    q, k, v = draw(2, T_q, 37), draw(2, 131, 37), draw(2, 131, 41)
    check(on_kernels, "float32", TILED, q, k, v, lse=name in ("plain", "window"), **BIG[name])


@pytest.mark.parametrize("shape", [(64, 64, 64), (16, 129, 128), (130, 61, 97), (17, 1, 2)])
@pytest.mark.usefixtures("only_tiles")
def test_tiled_with_keys_for_values(on_kernels: CpuKernels, shape: tuple[int, int, int]) -> None:
    T_q, T_k, D = shape
    keys = draw(1, T_k, D)
    check(on_kernels, "float32", TILED, draw(1, T_q, D), keys, keys, shared=True)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_heads_that_share_keys(request: pytest.FixtureRequest, on_kernels: CpuKernels, each: bool, tiles: bool) -> None:
    """With a mask for all heads of a group or for each of them; tiles of rows go across heads."""
    T_q, T_k = (29, 71) if tiles else (5, 7)
    if tiles:
        request.getfixturevalue("only_tiles")
    mask = RNG.random((2, 6 if each else 1, T_q, T_k)) < 0.5
    q, k, v = draw(2, 6, T_q, 3), draw(2, 2, T_k, 3), draw(2, 2, T_k, 5)
    options = {"mask": mask, "grouped": True, "window": (None, 2), "query_start": 1}
    check(on_kernels, "float32", TILED if tiles else SMALL, q, k, v, **options)


@pytest.mark.parametrize("tiles", [False, True])
def test_what_nobody_sees_may_hold_anything(
    request: pytest.FixtureRequest, on_kernels: CpuKernels, tiles: bool
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
        out, saved = F.attention(q, k, v, mask=mask)
        found.append([out, *F.attention_backward(saved, dout)])
    assert on_kernels.launched == 2 * (TILED if tiles else SMALL)
    for clean, other in zip(*found, strict=True):
        np.testing.assert_array_equal(clean, other)
        assert np.isfinite(clean).all()
    exact, _, _ = dense_attention(q, np.nan_to_num(k), np.nan_to_num(v), mask=mask & (np.arange(T_q) != 3)[:, None])
    rows = np.arange(T_q) != 3
    np.testing.assert_allclose(found[0][0][:, rows], exact[:, rows], atol=1e-5)
    assert (found[0][0][:, 3] == 0).all()


@pytest.mark.parametrize("tiles", [False, True])
def test_large_scores(request: pytest.FixtureRequest, on_kernels: CpuKernels, tiles: bool) -> None:
    if tiles:
        request.getfixturevalue("only_tiles")
    q, k = 40 * draw(1, 19, 8), 40 * draw(1, 133, 8)
    check(on_kernels, "float32", TILED if tiles else SMALL, q.round(), k.round(), draw(1, 133, 8), scale=1.0)


def test_calls_that_no_kernel_serves(monkeypatch: pytest.MonkeyPatch, on_kernels: CpuKernels) -> None:
    monkeypatch.setattr(on_kernels, "shared", 60 * 1024)
    for dtype, T_q, T_k, D in (
        ("float16", 3, 4, 5),
        ("float32", 1, 2000, 8),  # too many keys for the small kernel, too few rows for tiles
        ("float64", 600, 600, 8),
        ("float32", 600, 600, 200),
    ):
        out, saved = F.attention(*(draw(T, D).astype(dtype) for T in (T_q, T_k, T_k)))
        F.attention_backward(saved, np.ones_like(out))
    F.attention(draw(3, 5), draw(4, 5), draw(4, 5), causal=True, query_start=2**40)
    assert on_kernels.launched == []
    out, saved = F.attention(*(draw(200, 64).astype("float32") for _ in range(3)))
    F.attention_backward(saved, np.ones_like(out))
    assert on_kernels.launched == TILED
