"""Attention in half precision on the stand-ins: against float64, with nothing cast up or copied to be multiplied.

Both ways: products through cuBLAS, and cuDNN, which comes first where it takes a call.
"""

import pytest
from support import run_on_standin

CODE = """
import sys
import cudnn
import cupy
import ml_dtypes
import numpy as np
from cupy import counts
from attnbackends import get_backend
from attnlayers import functional as F

name, fused = sys.argv[1], sys.argv[3] == "cudnn"
dtype = np.dtype({"bfloat16": ml_dtypes.bfloat16}.get(sys.argv[2], sys.argv[2]))
rng = np.random.default_rng(0)
N, H, T_q, T_k = 2, 3, 5, 7
D, D_v = (16, 24) if fused else (11, 13)
pairs = rng.random((T_q, T_k)) < 0.5
pairs[2], pairs[:, 3] = False, False
options, shared, groups, rows = {
    "plain": ({}, False, 1, None),
    "keys are values": ({}, True, 1, None),
    "blocks of rows": ({}, False, 1, 2),
    "mask of keys": ({"mask": rng.random((N, 1, 1, T_k)) < 0.6}, False, 1, None),
    "mask of pairs": ({"mask": pairs}, True, 1, 3),
    "mask of each head": ({"mask": rng.random((N, H, T_q, T_k)) < 0.3}, False, 1, None),
    "causal": ({"causal": True, "query_start": "start"}, False, 1, 2),
    "causal at the end": ({"causal": True, "query_start": "end"}, True, 1, None),
    "window": ({"window": (2, 1), "query_start": "start"}, False, 1, None),
    "window at the end": ({"window": (3, None), "query_start": "end"}, False, 1, None),
    "window, starts": ({"window": (2, 1), "query_start": [3, -2]}, False, 1, 2),
    "beyond the keys": ({"window": (1, 0), "query_start": [9, 1]}, False, 1, 2),
    "lengths": ({"key_lengths": [4, 0]}, False, 1, None),
    "lengths, mask": ({"key_lengths": [4, 7], "causal": True, "query_start": "end", "mask": pairs}, True, 1, 2),
    "grouped": ({"causal": True, "query_start": 1}, False, 2, None),
    "grouped at the end": ({"causal": True, "query_start": "end"}, False, 2, None),
    "grouped, blocks": ({"mask": pairs}, False, 2, 3),
    "grouped, mask of all heads": ({"mask": pairs[None, None], "window": (2, 2), "query_start": 1}, True, 2, None),
}[name]
if groups > 1:
    options["grouped"] = True
if rows:
    get_backend("cupy").rows_at_once = lambda row_bytes: rows

def new(*shape):
    return rng.standard_normal(shape).astype(dtype)

q, k, dlse = new(N, H * groups, T_q, D), new(N, H, T_k, D), rng.standard_normal((N, H * groups, T_q)).astype("f4")
v = k if shared else new(N, H, T_k, D_v)
dlse *= not fused
dout = new(N, H * groups, T_q, v.shape[-1])

def all_of(module, q, k, v, dout):
    given = {key: module.asarray(value) if key == "mask" else value for key, value in options.items()}
    out, lse, saved = F.attention(q, k, v, return_lse=True, **given)
    given = {} if fused else {"dlse": module.asarray(dlse.astype(lse.dtype))}
    gradients = F.attention_backward(saved, dout, shared=shared, **given)
    return [out, lse, *gradients], saved

def wide(x):
    return x.astype(np.float64)

wide_k = wide(k)
right, saved = all_of(np, wide(q), wide_k, wide_k if shared else wide(v), wide(dout))
seen = saved.weights > 0  # (N, heads, T_q, T_k)

def rough(q, k, v, dout):
    # The same, every result rounded to half precision.
    def r(x):
        return x.astype(dtype)
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scale = dtype.type(D**-0.5)
    scores = np.where(seen, r(r(q @ k.mT) * scale), dtype.type(-np.inf))
    top = np.where(seen.any(-1, keepdims=True), scores.max(axis=-1, keepdims=True), dtype.type(0))
    weights = r(np.exp(r(scores - top)))
    total = r(weights.sum(axis=-1, keepdims=True))
    total = np.where(total == 0, dtype.type(1), total)
    lse = r(r(np.log(total)) + top)
    weights = r(weights / total)
    out = r(weights @ v)
    delta = r(r(r(dout * out).sum(axis=-1, keepdims=True)) - r(dlse[..., None]))
    dscores = r(r(weights * r(r(dout @ v.mT) - delta)) * scale)
    dq, dk, dv = r(dscores @ k), r(dscores.mT @ q), r(weights.mT @ dout)
    dk, dv = (r(x.reshape(N, H, groups, *x.shape[2:]).sum(axis=2)) for x in (dk, dv))
    return [out, lse[..., 0], dq, r(dk + dv)] if shared else [out, lse[..., 0], dq, dk, dv]

plain = rough(q, k, v, dout)
# Queries that see nothing may be anything, and keys that no query sees by position, or none by the mask.
q[~seen.any(axis=-1)] = np.nan
seen_keys = np.ones((N, H, T_k), dtype=bool)
for without in ("mask", "causal", "key_lengths", "window"):
    if without in options:
        left = {key: x for key, x in options.items() if (key == "mask") == (without != "mask")}
        left["grouped"] = groups > 1
        weights = F.attention(wide(np.ones_like(q)), wide(np.ones_like(k)), wide(v), **left)[-1].weights
        seen_keys &= (weights > 0).reshape(N, H, -1, T_k).any(axis=2)
k[~seen_keys] = np.nan
v[~seen_keys] = np.nan
q, k, v, dout = (cupy.asarray(x) for x in (q, k, v, dout))
counts.by_name.clear()
casts = []
astype = cupy.astype
cupy.astype = lambda x, to, **rest: casts.append((x.dtype, np.dtype(to), x.shape)) or astype(x, to, **rest)
ours, saved = all_of(cupy, q, k, k if shared else v, dout)
if fused:
    own = ["handle", "build sdpa", "sdpa", "build sdpa_backward", "sdpa_backward"]
    assert cudnn.calls == own and "gemm" not in counts.by_name, (cudnn.calls, counts.by_name)
    all_of(cupy, q, k, k if shared else v, dout)
    assert cudnn.calls[5:] == ["sdpa", "sdpa_backward"], cudnn.calls
else:
    assert counts.by_name["gemm"] >= 7 and not cudnn.calls, (counts.by_name, cudnn.calls)
assert not {"matmul", "copy for matmul", "ascontiguousarray"} & set(counts.by_name), counts.by_name
up = [shape for old, new, shape in casts if old == dtype != new]
assert casts and up == ([] if fused else [(N * H, groups * T_q, 1)]), casts  # dlse
empty = ~seen.any(axis=-1)
for i, (found, exact, near) in enumerate(zip(ours, right, plain, strict=True)):
    found = found.get()
    assert found.dtype == dtype and found.shape == exact.shape
    if i == 1:
        assert (found[empty] == exact[empty].astype(dtype)).all()
        found, exact, near = (x[~empty] for x in (found, exact, near))
    error, allowed = (np.abs(wide(x) - exact).max() for x in (found, near))
    assert error <= 2 * allowed, (i, error, allowed)
print("done")
"""

FUSED = ["plain", "keys are values", "causal", "causal at the end", "window", "window at the end", "grouped at the end"]
CASES = [
    "plain",
    "keys are values",
    "blocks of rows",
    "mask of keys",
    "mask of pairs",
    "mask of each head",
    "causal",
    "causal at the end",
    "window",
    "window at the end",
    "window, starts",
    "beyond the keys",
    "lengths",
    "lengths, mask",
    "grouped",
    "grouped at the end",
    "grouped, blocks",
    "grouped, mask of all heads",
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("way", "case"), [("products", case) for case in CASES] + [("cudnn", case) for case in FUSED])
def test_results(way: str, case: str, dtype: str) -> None:
    assert run_on_standin(CODE, case, dtype, way) == "done"
