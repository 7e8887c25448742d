"""CUDA's kernels in tiles, with the tiles that each device's shared memory has room for, whatever device answers.

A device with less shared memory than a case pretends to have skips it.
"""

from typing import Any

import numpy as np
import pytest
from dense_attention import from_scores, visible
from support import Library

from attnbackends._cuda.attention import TiledKernel
from attnbackends._cuda.plans import CudaAttention
from attnbackends._cuda.tiles import tile_for
from attnlayers import functional as F

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal, lengths": {"causal": True, "query_start": "end", "key_lengths": [131, 40]},
    "window": {"window": (17, 3), "query_start": [20, -9]},
    "mask": {},
    "far": {},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("width", [41, 128, 200])
@pytest.mark.parametrize("kilobytes", [64, 99, 163, 227])
@pytest.mark.parametrize("library", ["cupy"], indirect=True)
def test_against_float64(
    monkeypatch: pytest.MonkeyPatch, library: Library, kilobytes: int, width: int, name: str
) -> None:
    kernels, limit, launched = library.backend._kernels, kilobytes * 1024, []
    if kernels.shared_limit() < limit:
        pytest.skip(f"the device has {kernels.shared_limit()} bytes of shared memory a block")
    if tile_for(width, True, limit) is None:
        pytest.skip("rows are too wide for products without matrix units")
    ready = kernels.ready

    def noting(kernel: str, char: str, kinds: str, grid: Any, shared: int, macros: str) -> Any:
        launch = ready(kernel, char, kinds, grid, shared, macros)

        def launch_noted(*arguments: float) -> None:
            launched.append((kernel, macros))
            launch(*arguments)

        return launch_noted

    monkeypatch.setattr(kernels, "ready", noting)
    monkeypatch.setattr(kernels, "shared_limit", lambda: limit)
    monkeypatch.setattr(CudaAttention, "KERNELS", (TiledKernel,))
    monkeypatch.setattr(library.backend, "_attention_kernels", CudaAttention(kernels))
    monkeypatch.setattr(library.backend, "_weighted", None)
    rng, T_q, T_k = np.random.default_rng(width), 70, 131
    q, k, v, dout = (
        rng.standard_normal((2, T, D)).astype("float32")
        for T, D in ((T_q, width), (T_k, width), (T_k, width - 2), (T_q, width - 2))
    )
    dlse, options = rng.standard_normal((2, T_q)).astype("float32"), dict(OPTIONS[name])
    seen = np.stack([visible(T_q, T_k, entry=entry, **options) for entry in range(2)])
    if name == "mask":
        mask = rng.random((2, T_q, T_k)) < 0.3
        mask[:, 3], mask[:, :, 5] = False, False
        options["mask"], seen = library.array(mask), mask
    if name == "far":  # equal scores, which no float32 holds together with the logarithm of their sum
        q[...], k[...] = 0, 0
        q[..., 0], k[..., 0] = 1e4, 1e4
    scale = 1.0 if name == "far" else width**-0.5
    scores = np.where(seen, scale * (q.astype(float) @ np.swapaxes(k, 1, 2).astype(float)), -np.inf)
    exact = from_scores(scores, v, dout, dlse)
    given = [library.array(x, "float32") for x in (q, k, v)]
    out, saved = F.attention(*given, scale=scale, **options)
    gradients = F.attention_backward(saved, library.array(dout, "float32"), dlse=library.array(dlse, "float32"))
    tiles = [tile_for(width, backward, limit) for backward in (False, True)]
    assert [macros for _, macros in launched] == [tile.macros for tile in tiles if tile is not None]
    assert [kernel for kernel, _ in launched] == ["attention_tiled", "attention_tiled_backward"]
    dscores = scale * exact["dscores"]
    right = exact["out"], dscores @ k, np.swapaxes(dscores, 1, 2) @ q, exact["dv"]
    for found, expected in zip((out, *gradients), right, strict=True):
        size = max(1.0, float(np.abs(expected).max()), 0.02 * float(np.abs(k).max()))
        np.testing.assert_allclose(library.numpy(found), expected, rtol=1e-5, atol=2e-5 * size)
