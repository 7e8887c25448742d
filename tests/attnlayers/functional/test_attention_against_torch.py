"""The options that PyTorch has too, against its attention and autograd; dropout, which no two libraries draw alike."""

from typing import Any

import numpy as np
import pytest

from attnlayers import functional as F

torch = pytest.importorskip("torch")
SDPA = torch.nn.functional.scaled_dot_product_attention
RNG = np.random.default_rng(0)
N, HEADS, KEY_HEADS, T_Q, T_K, D, D_V = 2, 6, 3, 5, 7, 4, 3
MASK = RNG.random((N, 1, T_Q, T_K)) > 0.3
MASK[..., 0] = True  # PyTorch gives NaN where a query sees nothing
BIAS = RNG.standard_normal((HEADS, T_Q, T_K))
SQUARE = {"T_k": T_Q}


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        ({}, {}, {}),
        ({"scale": 0.3}, {"scale": 0.3}, {}),
        ({"mask": MASK}, {"attn_mask": MASK}, {}),
        ({"bias": BIAS}, {"attn_mask": BIAS}, {}),
        ({"causal": True}, {"is_causal": True}, SQUARE),
        ({"causal": True, "query_start": "start"}, {"is_causal": True}, {}),
        ({"grouped": True}, {"enable_gqa": True}, {"key_heads": KEY_HEADS}),
        ({"grouped": True, "mask": MASK}, {"enable_gqa": True, "attn_mask": MASK}, {"key_heads": KEY_HEADS}),
    ],
    ids=["plain", "scale", "mask", "bias", "causal", "causal, more keys", "grouped", "grouped, mask"],
)
@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_option(ours: dict[str, Any], theirs: dict[str, Any], shape: dict[str, int], keep_bytes: int) -> None:
    heads, T_k = shape.get("key_heads", HEADS), shape.get("T_k", T_K)
    q, k, v = (RNG.standard_normal(s) for s in ((N, HEADS, T_Q, D), (N, heads, T_k, D), (N, heads, T_k, D_V)))
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    bias = {key: torch.tensor(x, requires_grad=x.dtype != bool) for key, x in theirs.items() if key == "attn_mask"}
    expected = SDPA(*leaves, **(theirs | bias))
    dout = RNG.standard_normal(expected.shape)
    expected.backward(torch.tensor(dout))
    out, saved = F.attention(q, k, v, keep_bytes=keep_bytes, **ours)
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-10, atol=1e-12)
    leaves += [x for x in bias.values() if x.requires_grad]
    gradients = F.attention_backward(saved, dout, grads=("bias",) if len(leaves) > 3 else ())
    assert len(gradients) == len(leaves)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_dropout(keep_bytes: int) -> None:
    q, k, v = (RNG.standard_normal((3, T, D)) for T in (40, 50, 50))

    def out_of(**options: Any) -> tuple[np.ndarray, Any]:
        return F.attention(q, k, v, keep_bytes=keep_bytes, **options)

    (same, saved), (again, _), (other, _) = (out_of(dropout=0.4, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)
    mean = np.mean([out_of(dropout=0.4, seed=s)[0] for s in range(300)], axis=0)
    np.testing.assert_allclose(mean, out_of()[0], atol=0.15)
    # The same weights are dropped in backward: for one seed the output is linear in the values.
    dout, dv = RNG.standard_normal(same.shape), RNG.standard_normal(v.shape)
    moved, _ = F.attention(q, k, v + dv, keep_bytes=keep_bytes, dropout=0.4, seed=1)
    gradient = F.attention_backward(saved, dout)[2]
    assert np.sum(gradient * dv) == pytest.approx(np.sum(dout * (moved - same)))
    step, dq = 1e-6, RNG.standard_normal(q.shape)
    ends = [F.attention(q + s * step * dq, k, v, keep_bytes=keep_bytes, dropout=0.4, seed=1)[0] for s in (1, -1)]
    numeric = np.sum(dout * (ends[0] - ends[1])) / (2 * step)
    assert np.sum(F.attention_backward(saved, dout)[0] * dq) == pytest.approx(numeric, rel=1e-6)
