"""bfloat16 on CuPy, without cuDNN: every option that hides keys, against float64 of the rounded numbers."""

from typing import Any

import numpy as np
import pytest
from conftest import library_of
from dense_attention import dense_attention

from attnlayers import functional as F

RNG = np.random.default_rng(0)
N, T_Q, T_K, D, D_V = 2, 5, 7, 8, 16
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask of keys": {"mask": np.array([[[True] * 5 + [False] * 2], [[False] * 3 + [True] * 4]])},
    "mask of pairs": {"mask": RNG.random((T_Q, T_K)) < 0.6},
    "lengths": {"key_lengths": [4, 0]},
    "causal at the ends": {"key_lengths": [4, 7], "causal": True, "query_start": "end"},
    "weights asked for": {"return_weights": True, "key_lengths": [4, 7]},
}


@pytest.mark.parametrize("name", ["cupy"])
@pytest.mark.parametrize("option", OPTIONS)
def test_forward_and_backward(name: str, option: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    library, options = library_of(name), OPTIONS[option]
    q, k, v, dout = (
        RNG.standard_normal(shape).astype(bfloat16)
        for shape in ((N, T_Q, D), (N, T_K, D), (N, T_K, D_V), (N, T_Q, D_V))
    )
    own = {key: library.array(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
    out, *_, saved = F.attention(*(library.backend.asarray(x) for x in (q, k, v)), **own)
    gradients = F.attention_backward(saved, library.backend.asarray(dout))
    plain = {key: x for key, x in options.items() if key != "return_weights"}
    wide_q, wide_k, wide_v, wide_dout = (x.astype(np.float64) for x in (q, k, v, dout))
    exact, weights, _ = dense_attention(wide_q, wide_k, wide_v, **plain)
    dweights = wide_dout @ wide_v.swapaxes(1, 2)
    dscores = weights * (dweights - np.sum(weights * dweights, axis=-1, keepdims=True)) / np.sqrt(D)
    expected = [exact, dscores @ wide_k, dscores.swapaxes(1, 2) @ wide_q, weights.swapaxes(1, 2) @ wide_dout]
    for found, right in zip((out, *gradients), expected, strict=True):
        assert found.dtype == bfloat16
        np.testing.assert_allclose(
            library.numpy(found).astype(np.float64), right, atol=0.02 * np.abs(expected[3]).max()
        )
