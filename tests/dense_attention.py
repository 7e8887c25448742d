"""Attention with every option, said as plainly as possible: all scores at once, one query and one key at a time."""

from typing import Any

import numpy as np


def visible(
    T_q: int,
    T_k: int,
    *,
    entry: int = 0,
    causal: bool = False,
    query_start: Any = None,
    window: Any = None,
    key_lengths: Any = None,
    query_offsets: Any = None,
    key_offsets: Any = None,
) -> np.ndarray:
    """Which keys each query of one batch entry sees by position: boolean (T_q, T_k)."""
    seen = np.zeros((T_q, T_k), dtype=bool)
    packed = query_offsets is not None
    pair = (query_offsets, query_offsets if key_offsets is None else key_offsets) if packed else ([0, T_q], [0, T_k])
    left, right = window or (None, None)
    if causal:
        right = 0
    for s in range(len(pair[0]) - 1):
        q0, q1, k0, k1 = pair[0][s], pair[0][s + 1], pair[1][s], pair[1][s + 1]
        valid = k1 - k0 if key_lengths is None else key_lengths[entry]
        if query_start in (None, "start"):
            start = 0
        elif query_start == "end":
            start = valid - (q1 - q0)
        elif isinstance(query_start, int):
            start = query_start
        else:
            start = query_start[s if packed else entry]
        for i in range(q1 - q0):
            for j in range(valid):
                position = start + i
                after_left = left is None or j >= position - left
                before_right = right is None or j <= position + right
                seen[q0 + i, k0 + j] = after_left and before_right
    return seen


def dense_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    scale: float | None = None,
    mask: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    grouped: bool = False,
    softcap: float | None = None,
    sinks: np.ndarray | None = None,
    **positions: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, weights and log-sum-exp (-inf where nothing is seen), in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    if grouped:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    lead, (T_q, T_k) = np.broadcast_shapes(scores.shape[:-2], v.shape[:-2]), scores.shape[-2:]
    scores = np.broadcast_to(scores, (*lead, T_q, T_k)).copy()
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    for entry in range(lead[0] if lead else 1):
        hidden = ~visible(T_q, T_k, entry=entry, **positions)
        (scores[entry] if lead else scores)[..., hidden] = -np.inf
    totals = np.sum(np.exp(scores), axis=-1)
    if sinks is not None:
        totals = totals + np.exp(np.broadcast_to(sinks, lead))[..., None]
    weights = np.exp(scores) / np.where(totals == 0, 1, totals)[..., None]
    with np.errstate(divide="ignore"):
        return weights @ v, weights, np.log(totals)


def from_scores(
    scores: np.ndarray,
    v: np.ndarray,
    dout: np.ndarray,
    dlse: np.ndarray,
    sinks: np.ndarray | None = None,
    dropped: np.ndarray | float = 1.0,
) -> dict[str, np.ndarray]:
    """Output, log-sum-exp (..., T_q) and gradients in float64, from scores (..., T_q, T_k) that may hold -inf.

    Weights are multiplied by `dropped`.
    """
    scores, v, dout, dlse = (x.astype(np.float64) for x in (scores, v, dout, dlse[..., None]))
    sink = np.full((*scores.shape[:-1], 1), -np.inf) if sinks is None else np.zeros_like(dlse) + sinks[..., None, None]
    top = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    top = np.where(np.isneginf(top), 0, top)
    weights, of_sink = np.exp(scores - top), np.exp(sink - top)
    total = weights.sum(axis=-1, keepdims=True) + of_sink
    weights, of_sink = (x / np.where(total == 0, 1, total) for x in (weights, of_sink))
    used = weights * dropped
    out = used @ v
    delta = np.sum(dout * out, axis=-1, keepdims=True) - dlse
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    return {
        "out": out,
        "lse": lse,
        "dscores": weights * (dropped * (dout @ np.swapaxes(v, -1, -2)) - delta),
        "dv": np.swapaxes(used, -1, -2) @ dout,
        "dsinks": -(of_sink * delta).sum(axis=(-2, -1)),
    }


def visible_everywhere(q: np.ndarray, k: np.ndarray, *, mask: np.ndarray | None = None, **positions: Any) -> np.ndarray:
    """Which keys each query sees, by position and by the mask: boolean (..., T_q, T_k) for every head of q."""
    lead, T_q, T_k = q.shape[:-2], q.shape[-2], k.shape[-2]
    entries = np.stack([visible(T_q, T_k, entry=entry, **positions) for entry in range(lead[0])])
    seen = np.broadcast_to(entries.reshape(lead[0], *(1,) * (len(lead) - 1), T_q, T_k), (*lead, T_q, T_k))
    return seen if mask is None else seen & mask


def dense_gradients(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    dout: np.ndarray,
    dlse: np.ndarray,
    *,
    shared: bool,
    scale: float | None = None,
    grouped: bool = False,
    softcap: float | None = None,
    bias: np.ndarray | float = 0.0,
    sinks: np.ndarray | None = None,
    dropped: np.ndarray | float = 1.0,
    of_sinks: bool = False,
    **sight: Any,
) -> list[np.ndarray]:
    """Output, log-sum-exp, and the gradients of q, k and v in float64; `shared`: that of k is for both.

    With `of_sinks` that of the sinks (H,), too.
    """
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    seen = visible_everywhere(q, k, **sight)
    groups = q.shape[-3] // k.shape[-3] if grouped else 1
    if grouped:
        k, v = (np.repeat(x, groups, axis=-3) for x in (k, v))
    scores, slope = scale * (q @ np.swapaxes(k, -1, -2)), 1.0
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
        slope = 1 - (scores / softcap) ** 2
    found = from_scores(np.where(seen, scores + bias, -np.inf), v, dout, dlse, sinks, dropped)
    dscores = scale * slope * found["dscores"]
    into_k = [np.swapaxes(dscores, -1, -2) @ q, found["dv"]]
    if grouped:  # heads that share keys add up
        into_k = [x.reshape(*x.shape[:-3], -1, groups, *x.shape[-2:]).sum(axis=-3) for x in into_k]
    further = [found["dsinks"].reshape(-1, *np.shape(sinks)).sum(axis=0)] if of_sinks else []
    return [found["out"], found["lse"], dscores @ k, *([sum(into_k)] if shared else into_k), *further]
