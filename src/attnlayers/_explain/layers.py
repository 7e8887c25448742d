"""The steps of each attention layer, computed anew on the host in float64 from what the layer has kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnbackends import Array, backend_of

from .. import functional as F
from ..layers import Attention, AttentionWeight, MultiHeadAttention, TimeAttention, WeightSum
from .table import Explanation

LAYERS = (WeightSum, AttentionWeight, Attention, TimeAttention, MultiHeadAttention)


def explain(layer: Any) -> Explanation:
    """Every intermediate of an attention layer's last forward and backward.

    Parameters
    ----------
    layer : WeightSum, AttentionWeight, Attention, TimeAttention or MultiHeadAttention
        After `forward`; with `backward`, the gradients too. Its inputs must still be what they were.

    Returns
    -------
    Explanation
        A table with name, formula, shape and, where they are few, numbers: text, or HTML in a notebook. Numbers are
        computed in float64 from inputs, parameters and the incoming gradient; of a gradient of more than 4,096 elements
        there are shapes alone.

    Raises
    ------
    TypeError
        For another layer.
    RuntimeError
        If there was no forward.
    ValueError
        After a forward that dropped weights.

    Examples
    --------
    >>> import numpy as np
    >>> layer = WeightSum()
    >>> _ = layer.forward(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[0.25, 0.75]]))
    >>> print(explain(layer))
    WeightSum
    hs  given               (1, 2, 2)
        [[[1. 2.]
          [3. 4.]]]
    a   given               (1, 2)
        [[0.25 0.75]]
    t   hs * a[:, :, None]  (1, 2, 2)
        [[[0.25 0.5 ]
          [2.25 3.  ]]]
    c   Σ_T t               (1, 2)
        [[2.5 3.5]]
    There was no backward yet.
    """
    if not isinstance(layer, LAYERS):
        names = ", ".join(kind.__name__ for kind in LAYERS)
        inner = getattr(layer, "layers", {})
        parts = [f"explain(layer.layers[{name!r}])" for name, part in inner.items() if isinstance(part, LAYERS)]
        raise TypeError(
            f"`layer` must be one of {names}, got {type(layer).__name__}{': try ' + parts[0] if parts else ''}"
        )
    if layer._saved is None:
        raise RuntimeError(f"{type(layer).__name__} has nothing to explain: call forward first")
    table = Explanation(type(layer).__name__)
    inner_layer = layer._all_steps if isinstance(layer, Attention) else layer
    dout = _Dout(inner_layer._dout)
    if isinstance(layer, WeightSum):
        _weight_sum(table, _host(layer._saved.values), _host(layer._saved.weights), dout)
    elif isinstance(layer, MultiHeadAttention):
        _multi_head(table, layer, dout)
    else:
        kept = layer._saved.attention if isinstance(layer, AttentionWeight) else inner_layer._saved
        _of_the_book(table, type(layer), kept, dout)
    if dout.missing:
        table.note = "There was no backward yet."
    elif not dout.kept:
        table.note = "The incoming gradient is large and was not kept: shapes alone."
    return table


class _Dout:
    """The incoming gradient, or its shape where it is large, or nothing before backward."""

    def __init__(self, noted: Any) -> None:
        self.missing, self.kept = noted is None, not isinstance(noted, tuple)
        self.value: Any = _host(noted) if self.kept and not self.missing else None

    def rows(self, table: Explanation, rows: list[tuple[str, str, tuple[int, ...], Any]]) -> None:
        if not self.missing:
            for name, formula, shape, function in rows:
                table.add(name, formula, shape, function if self.kept else None)


def _host(array: Array) -> np.ndarray:
    """As float64."""
    values = array if isinstance(array, np.ndarray) else backend_of(array).to_numpy(array)
    return np.asarray(values).astype(np.float64)


def _weight_sum(table: Explanation, hs: np.ndarray, a: np.ndarray, dout: _Dout) -> None:
    t = table
    N, T, H = hs.shape
    t.add("hs", "given", hs.shape, lambda: hs)
    t.add("a", "given", a.shape, lambda: a)
    t.add("t", "hs * a[:, :, None]", hs.shape, lambda: hs * a[:, :, None])
    t.add("c", "Σ_T t", (N, H), lambda: t["t"].sum(axis=1))
    rows = [
        ("dc", "given", (N, H), lambda: dout.value),
        ("dt", "dc for each of T", (N, T, H), lambda: np.repeat(t["dc"][:, None, :], T, axis=1)),
        ("dhs", "dt * a[:, :, None]", (N, T, H), lambda: t["dt"] * a[:, :, None]),
        ("da", "Σ_H dt * hs", (N, T), lambda: (t["dt"] * hs).sum(axis=2)),
    ]
    dout.rows(t, rows)


def _of_the_book(table: Explanation, kind: type, kept: Any, dout: _Dout) -> None:
    """Attention without projections; u stands for the axis of decoder steps, where there is one."""
    t = table
    problem = getattr(kept, "problem", kept)
    hs, queries = _host(problem.k), _host(problem.q)
    N, T, _ = hs.shape
    u, steps = ("u", (queries.shape[1],)) if kind is TimeAttention else ("", ())
    h, enc, dec, out = ("hs_dec", "hs_enc", "dhs_dec", "out") if u else ("h", "hs", "dh", "c")
    queries = queries if u else queries[:, 0, :]
    mask = getattr(problem, "mask", None)
    seen = None
    if mask is not None:
        seen = _host(mask.array).astype(bool)[:, 0]  # (N or 1, 1, T)
        seen = seen if u else seen[:, 0]
    t.add(enc, "given", hs.shape, lambda: hs)
    t.add(h, "given", queries.shape, lambda: queries)
    t.add("s", f"{h} · {enc}", (N, *steps, T), lambda: np.einsum(f"n{u}h,nth->n{u}t", queries, hs))
    if seen is not None:
        t.add("mask", "given, 1 = attend", seen.shape, lambda: seen.astype(np.float64))
    hidden = "" if seen is None else " where mask, else 0"
    t.add("e", f"exp(s - max_T s){hidden}", (N, *steps, T), lambda: _exp(t["s"], seen))
    t.add("z", "Σ_T e", (N, *steps, 1), lambda: t["e"].sum(axis=-1, keepdims=True))
    t.add("a", "e / z", (N, *steps, T), lambda: t["e"] / np.where(t["z"] == 0, 1, t["z"]))
    incoming: list[tuple[str, str, tuple[int, ...], Any]]
    if kind is AttentionWeight:
        incoming = [("da", "given", (N, T), lambda: dout.value)]
    else:
        t.add(out, f"a · {enc}", queries.shape, lambda: np.einsum(f"n{u}t,nth->n{u}h", t["a"], hs))
        given = f"d{out}"
        incoming = [
            (given, "given", queries.shape, lambda: dout.value if u else dout.value[:, 0, :]),
            ("da", f"{given} · {enc}", (N, *steps, T), lambda: np.einsum(f"n{u}h,nth->n{u}t", t[given], hs)),
        ]
    through_scores = f"Σ_T_dec ds * {h}" if u else f"ds * {h}"
    rows = [
        *incoming,
        ("ds", "a * (da - Σ_T a * da)", (N, *steps, T), lambda: _softmax_backward(t["a"], t["da"])),
        (dec, f"ds · {enc}", queries.shape, lambda: np.einsum(f"n{u}t,nth->n{u}h", t["ds"], hs)),
    ]
    if kind is AttentionWeight:
        rows.append((f"d{enc}", through_scores, hs.shape, lambda: np.einsum("nt,nh->nth", t["ds"], queries)))
    else:
        sums = "Σ_T_dec " if u else ""
        first, second = f"d{enc} of the sum", f"d{enc} of the weights"
        rows += [
            (first, f"{sums}a * {given}", hs.shape, lambda: np.einsum(f"n{u}t,n{u}h->nth", t["a"], t[given])),
            (second, through_scores, hs.shape, lambda: np.einsum(f"n{u}t,n{u}h->nth", t["ds"], queries)),
            (f"d{enc}", "the sum of both", hs.shape, lambda: t[first] + t[second]),
        ]
    dout.rows(t, rows)


def _exp(scores: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    if seen is None:
        return np.asarray(np.exp(scores - scores.max(axis=-1, keepdims=True)))
    highest = np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0)  # a row that sees nothing
    return np.where(seen, np.exp(np.where(seen, scores, highest) - highest), 0.0)


def _softmax_backward(a: np.ndarray, da: np.ndarray) -> np.ndarray:
    return np.asarray(a * (da - (a * da).sum(axis=-1, keepdims=True)))


def _multi_head(table: Explanation, layer: MultiHeadAttention, dout: _Dout) -> None:
    if layer.dropout and layer.training:
        raise ValueError("explain shows attention without dropout, and this layer drops: layer.training = False")
    t = table
    heads, group = layer.heads, layer.heads // layer.key_heads
    x, context = _host(layer.query.saved().x), _host(layer.key.saved().x)
    cross = layer._saved.cross
    N, T_q, T_k = x.shape[0], x.shape[1], context.shape[1]
    each = (N, heads, T_q, T_k)
    (Wq, bq), (Wk, bk), (Wv, bv), (Wo, bo) = (
        (_host(part.params[0]), _host(part.params[1]) if len(part.params) > 1 else 0.0)
        for part in (layer.query, layer.key, layer.value, layer.output)
    )
    D, D_v = Wq.shape[1] // heads, Wv.shape[1] // layer.key_heads
    q_shape, k_shape, v_shape = (N, heads, T_q, D), (N, layer.key_heads, T_k, D), (N, layer.key_heads, T_k, D_v)

    def shared(a: np.ndarray) -> np.ndarray:
        """A key head for each query head."""
        return np.repeat(a, group, axis=1)

    def summed(a: np.ndarray) -> np.ndarray:
        return np.asarray(a.reshape(N, layer.key_heads, group, *a.shape[2:]).sum(axis=2))

    source = "context" if cross else "x"
    t.add("x", "given", x.shape, lambda: x)
    if cross:
        t.add("context", "given", context.shape, lambda: context)
    turned = "turned by position(" if layer.rotary else ""
    close = ")" if turned else ""
    t.add("q", f"{turned}heads of x Wq + bq{close}", q_shape, lambda: _turn(layer, _split(x @ Wq + bq, heads)))
    t.add(
        "k", f"{turned}heads of {source} Wk + bk{close}", k_shape,
        lambda: _turn(layer, _split(context @ Wk + bk, layer.key_heads)),
    )  # fmt: skip
    t.add("v", f"heads of {source} Wv + bv", v_shape, lambda: _split(context @ Wv + bv, layer.key_heads))
    scale, cap = D**-0.5, layer.softcap
    t.add("s", "q kᵀ / √D", each, lambda: scale * t["q"] @ shared(t["k"]).swapaxes(2, 3))
    scores = "s" if cap is None else f"{cap:g} tanh(s / {cap:g})"
    scores += " + bias" if layer._saved.biased else ""
    t.add("a", f"softmax_T({scores}), 0 where hidden", each, lambda: _host(layer._saved.attention.weights))
    t.add("heads", "a v", (N, heads, T_q, D_v), lambda: t["a"] @ shared(t["v"]))
    t.add("out", "heads side by side Wo + bo", (N, T_q, Wo.shape[1]), lambda: _merge(t["heads"]) @ Wo + bo)

    def ds() -> np.ndarray:
        d: np.ndarray = _softmax_backward(t["a"], t["da"])
        return d if cap is None else np.asarray(d * (1 - np.tanh(t["s"] / cap) ** 2))

    def back(name: str, W: np.ndarray) -> np.ndarray:
        return np.asarray(_merge(_turn(layer, t[name], back=True) if name != "dv" else t[name]) @ W.T)

    capped = "" if cap is None else f" * (1 - tanh²(s / {cap:g}))"
    grouped = "" if group == 1 else f", summed over {group} query heads"
    undo = " (turned back)" if layer.rotary else ""
    rows = [
        ("dout", "given", (N, T_q, Wo.shape[1]), lambda: dout.value),
        ("dheads", "heads of dout Woᵀ", (N, heads, T_q, D_v), lambda: _split(t["dout"] @ Wo.T, heads)),
        ("dv", f"aᵀ dheads{grouped}", v_shape, lambda: summed(t["a"].swapaxes(2, 3) @ t["dheads"])),
        ("da", "dheads vᵀ", each, lambda: t["dheads"] @ shared(t["v"]).swapaxes(2, 3)),
        ("ds", f"a * (da - Σ_T a * da){capped}", each, ds),
        ("dq", "ds k / √D", q_shape, lambda: scale * t["ds"] @ shared(t["k"])),
        ("dk", f"dsᵀ q / √D{grouped}", k_shape, lambda: summed(scale * t["ds"].swapaxes(2, 3) @ t["q"])),
    ]
    through_keys = f"dk{undo} Wkᵀ + dv Wvᵀ"
    if cross:
        rows += [
            ("dx", "dq Wqᵀ", x.shape, lambda: back("dq", Wq)),
            ("dcontext", through_keys, context.shape, lambda: back("dk", Wk) + back("dv", Wv)),
        ]
    else:
        all_three = f"dq{undo} Wqᵀ + {through_keys}"
        rows.append(("dx", all_three, x.shape, lambda: back("dq", Wq) + back("dk", Wk) + back("dv", Wv)))
    dout.rows(t, rows)


def _split(x: np.ndarray, heads: int) -> np.ndarray:
    """(N, T, heads D) -> (N, heads, T, D)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _merge(x: np.ndarray) -> np.ndarray:
    """(N, heads, T, D) -> (N, T, heads D)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _turn(layer: MultiHeadAttention, x: np.ndarray, *, back: bool = False) -> np.ndarray:
    """Queries or keys turned by their positions, or gradients turned back, where the layer does that."""
    if not layer.rotary:
        return x
    options: dict[str, Any] = {"base": layer.rotary_base, "interleaved": layer.rotary == "interleaved"}
    turned, saved = F.rotary(x, np.arange(x.shape[2]), **options)
    return np.asarray(F.rotary_backward(saved, x) if back else turned)
