"""Attention in half precision on CuPy: against float64, with nothing cast up or copied to be multiplied.

Both ways: products through cuBLAS, and cuDNN (on the bench, a fake one), which comes first where it takes a call.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from cuda_on_cpu.counts import Counts
from dense_attention import dense_gradients, visible_everywhere
from support import Library

from attnlayers import functional as F

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

N, H, T_Q, T_K = 2, 3, 5, 7
RNG = np.random.default_rng(0)
PAIRS = RNG.random((T_Q, T_K)) < 0.5
PAIRS[2], PAIRS[:, 3] = False, False


class Case(NamedTuple):
    options: dict[str, Any]
    shared: bool = False
    groups: int = 1
    rows: int | None = None  # of a block, where it is set


CASES = {
    "plain": Case({}),
    "keys are values": Case({}, shared=True),
    "blocks of rows": Case({}, rows=2),
    "mask of keys": Case({"mask": RNG.random((N, 1, 1, T_K)) < 0.6}),
    "mask of pairs": Case({"mask": PAIRS}, shared=True, rows=3),
    "mask of each head": Case({"mask": RNG.random((N, H, T_Q, T_K)) < 0.3}),
    "causal": Case({"causal": True, "query_start": "start"}, rows=2),
    "causal at the end": Case({"causal": True, "query_start": "end"}, shared=True),
    "window": Case({"window": (2, 1), "query_start": "start"}),
    "window at the end": Case({"window": (3, None), "query_start": "end"}),
    "window, starts": Case({"window": (2, 1), "query_start": [3, -2]}, rows=2),
    "beyond the keys": Case({"window": (1, 0), "query_start": [9, 1]}, rows=2),
    "lengths": Case({"key_lengths": [4, 0]}),
    "lengths, mask": Case(
        {"key_lengths": [4, 7], "causal": True, "query_start": "end", "mask": PAIRS}, shared=True, rows=2
    ),
    "grouped": Case({"causal": True, "query_start": 1}, groups=2),
    "grouped at the end": Case({"causal": True, "query_start": "end"}, groups=2),
    "grouped, blocks": Case({"mask": PAIRS}, groups=2, rows=3),
    "grouped, mask of all heads": Case(
        {"mask": PAIRS[None, None], "window": (2, 2), "query_start": 1}, shared=True, groups=2
    ),
}
FUSED = (
    *("plain", "keys are values", "causal", "causal at the end", "window", "window at the end"),
    "grouped at the end",
)


class Given(NamedTuple):
    """The arguments of a call in half precision, NaN where nothing may look, and the results that are right.

    Attributes
    ----------
    arrays : list of arrays
        q, k, v, dout and dlse. `v` is `k` where the keys are the values.
    exact : list of arrays
        Output, log-sum-exp and gradients in float64.
    rough : list of arrays
        The same, every result of an operation rounded to half precision.
    empty : array
        The queries that see nothing.
    """

    arrays: list[np.ndarray]
    exact: list[np.ndarray]
    rough: list[np.ndarray]
    empty: np.ndarray


def given(case: Case, dtype: str, fused: bool = False) -> Given:
    rng, kind = np.random.default_rng(0), np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    sight, heads, (D, D_v) = case.options, H * case.groups, (16, 24) if fused else (11, 13)

    def new(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(kind)

    q, k, dlse = new(N, heads, T_Q, D), new(N, H, T_K, D), new(N, heads, T_Q) * kind.type(not fused)
    v = k if case.shared else new(N, H, T_K, D_v)
    dout = new(N, heads, T_Q, v.shape[-1])
    grouped = {"grouped": True} if case.groups > 1 else {}
    wide = [x.astype(float) for x in (q, k, v, dout, dlse)]
    exact = dense_gradients(*wide, shared=case.shared, **grouped, **sight)
    seen = visible_everywhere(q, k, **sight)
    rough = rounded(q, k, v, dout, dlse, seen, case)
    # Queries that see nothing may be anything; by products also keys that no query sees by position, or by the mask.
    positions = {name: value for name, value in sight.items() if name != "mask"}
    q[~seen.any(axis=-1)] = np.nan
    parts = (visible_everywhere(q, k, **positions), np.broadcast_to(sight.get("mask", True), seen.shape))
    for part in () if fused else parts:
        unseen = ~part.reshape(N, H, -1, T_K).any(axis=2)
        k[unseen], v[unseen] = np.nan, np.nan
    return Given([q, k, v, dout, dlse], exact, rough, ~seen.any(axis=-1))


def rounded(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, dout: np.ndarray, dlse: np.ndarray, seen: np.ndarray, case: Case
) -> list[np.ndarray]:
    """Output, log-sum-exp and gradients, with every result of an operation in the dtype of the arguments."""
    dtype, groups = q.dtype, case.groups

    def r(x: np.ndarray) -> np.ndarray:
        return x.astype(dtype)

    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scale = dtype.type(q.shape[-1] ** -0.5)
    scores = np.where(seen, r(r(q @ k.mT) * scale), dtype.type(-np.inf))
    top = np.where(seen.any(-1, keepdims=True), scores.max(axis=-1, keepdims=True), dtype.type(0))
    weights = r(np.exp(r(scores - top)))
    total = r(weights.sum(axis=-1, keepdims=True))
    total = np.where(total == 0, dtype.type(1), total)
    lse = r(r(np.log(total)) + top)
    weights = r(weights / total)
    out = r(weights @ v)
    delta = r(r(r(dout * out).sum(axis=-1, keepdims=True)) - dlse[..., None])
    dscores = r(r(weights * r(r(dout @ v.mT) - delta)) * scale)
    dq, dk, dv = r(dscores @ k), r(dscores.mT @ q), r(weights.mT @ dout)
    dk, dv = (r(x.reshape(N, H, groups, *x.shape[2:]).sum(axis=2)) for x in (dk, dv))
    return [out, lse[..., 0], dq, *([r(dk + dv)] if case.shared else [dk, dv])]


def computed(library: Library, case: Case, arrays: list[np.ndarray]) -> list[Any]:
    q, k, v, dout, dlse = (library.xp.asarray(x) for x in arrays)
    options = {name: library.array(x) if name == "mask" else x for name, x in case.options.items()}
    if case.groups > 1:
        options["grouped"] = True
    out, lse, saved = F.attention(q, k, None if case.shared else v, return_lse=True, **options)
    further = {"dlse": dlse} if arrays[4].any() else {}
    return [out, lse, *F.attention_backward(saved, dout, **further)]


def check(found: list[Any], asked: Given) -> None:
    """Errors of at most twice those of the plain formulas in half precision."""
    for i, (own, exact, rough) in enumerate(zip(found, asked.exact, asked.rough, strict=True)):
        ours = own.get()
        assert ours.dtype == asked.arrays[0].dtype
        assert ours.shape == exact.shape
        if i == 1:
            assert (ours[asked.empty] == exact[asked.empty].astype(ours.dtype)).all()
            ours, exact, rough = (x[~asked.empty] for x in (ours, exact, rough))
        error, allowed = (np.abs(x.astype(float) - exact).max() for x in (ours, rough))
        assert error <= 2 * allowed, f"result {i}"


def copies(did: Counts, dtype: str) -> dict[str, int]:
    """The copies and casts of arrays in half precision."""
    return {name: count for name, count in did.launches.items() if name.startswith(f"cupy_copy__{dtype}_")}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_by_products(monkeypatch: pytest.MonkeyPatch, library: Library, name: str, dtype: str) -> None:
    case = CASES[name]
    if case.rows:
        monkeypatch.setattr(library.backend, "block_of_scores", lambda *_: (case.rows, T_K))
    asked = given(case, dtype)
    check(computed(library, case, asked.arrays), asked)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_what_products_take(
    monkeypatch: pytest.MonkeyPatch,
    library: Library,
    cudnn: ModuleType,
    done_since: Callable[[], Counts],
    name: str,
    dtype: str,
) -> None:
    case = CASES[name]
    if case.rows:
        monkeypatch.setattr(library.backend, "block_of_scores", lambda *_: (case.rows, T_K))
    arrays = given(case, dtype).arrays
    done_since()
    computed(library, case, arrays)
    did = done_since()
    assert not cudnn.calls
    assert did.products > 0
    # Cast up is dlse, of one number a query; nothing else is, and no operand is copied by a kernel.
    assert copies(did, dtype) == {f"cupy_copy__{dtype}_float32": 1}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FUSED)
def test_by_cudnn(library: Library, cudnn: ModuleType, done_since: Callable[[], Counts], name: str, dtype: str) -> None:
    case = CASES[name]
    asked = given(case, dtype, fused=True)
    done_since()
    found = computed(library, case, asked.arrays)
    did = done_since()
    assert cudnn.calls == ["handle", "build sdpa", "sdpa", "build sdpa_backward", "sdpa_backward"]
    assert did.products == 0
    assert copies(did, dtype) == {}
    assert did.on_device == 1  # the output, which backward reads again
    check(found, asked)
    computed(library, case, asked.arrays)
    assert cudnn.calls[5:] == ["sdpa", "sdpa_backward"]
