"""Additive attention: scores are a small network of query and key.

The weights are kept for backward: this form belongs to the recurrent networks of 2015, whose sequences are short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from attnbackends import Array, Backend, float_bits

from .arrays import softmax_vjp, wide_empty, widen_seen
from .checks import check, check_gradient
from .dtypes import narrow, widen


class SavedAdditive(NamedTuple):
    """What `additive_attention_backward` needs; all in the dtype to compute in."""

    backend: Backend
    q: Array  # (N, T_q, A)
    k: Array  # (N, T_k, A)
    v: Array  # (N, T_k, H)
    w: Array  # (A,)
    weights: Array  # (N, T_q, T_k)
    out: Array


def additive_attention(
    q: Array, k: Array, v: Array, w: Array, *, mask: Array | None = None
) -> tuple[Array, SavedAdditive]:
    """``softmax(tanh(q + k) @ w) @ v``, the sum over every pair of a query and a key.

    Parameters
    ----------
    q : array (N, T_q, A)
        Queries, projected.
    k : array (N, T_k, A)
        Keys, projected.
    v : array (N, T_k, H)
    w : array (A,)
    mask : boolean array (N, T_k), optional
        True = attend; what is left out may hold anything.

    Returns
    -------
    out : array (N, T_q, H)
    saved : SavedAdditive
        ``saved.weights`` are (N, T_q, T_k), in float32 for half precision.

    References
    ----------
    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", 2015, A.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> q, k, v = np.zeros((1, 1, 1)), np.array([[[0.0], [9.0]]]), np.array([[[0.0], [1.0]]])
    >>> additive_attention(q, k, v, np.array([np.log(3.0)]))[0].round(3)
    array([[[0.75]]])
    """
    backend = check(q=(q, "N T_q A"), k=(k, "N T_k A"), v=(v, "N T_k H"), w=(w, "A"), mask=(mask, "N T_k: bool"))
    xp = backend.xp
    wide_q, wide_k, wide_v, wide_w = (
        widen(backend, q),
        widen_seen(backend, k, mask),
        widen_seen(backend, v, mask),
        widen(backend, w),
    )
    weights = wide_empty(backend, (q.shape[0], q.shape[1], k.shape[1]), like=q)

    def block(n: slice, rows: slice) -> None:
        tanh = xp.tanh(wide_q[n, rows, None, :] + wide_k[n, None, :, :])  # (n, r, T_k, A)
        weights[n, rows, :] = xp.matmul(tanh, wide_w[:, None])[..., 0]

    _in_blocks(backend, block, wide_q, wide_k)
    backend.softmax(weights, None if mask is None else mask[:, None, :])
    out = narrow(backend, backend.matmul(weights, wide_v), q.dtype)  # (N, T_q, T_k) x (N, T_k, H)
    return out, SavedAdditive(backend, wide_q, wide_k, wide_v, wide_w, weights, out)


def additive_attention_backward(saved: SavedAdditive, dout: Array) -> tuple[Array, Array, Array, Array]:
    """Gradients of `additive_attention`: dout (N, T_q, H) -> dq, dk, dv, dw; keys that were left out get 0."""
    backend, xp, q, k = saved.backend, saved.backend.xp, saved.q, saved.k
    check_gradient("dout", dout, like=saved.out)
    wide_dout = widen(backend, dout)
    dv = backend.matmul(xp.matrix_transpose(saved.weights), wide_dout)  # (N, T_k, T_q) x (N, T_q, H)
    dscores = backend.matmul(wide_dout, xp.matrix_transpose(saved.v))  # (N, T_q, H) x (N, H, T_k)
    softmax_vjp(backend, saved.weights, dscores)
    dq, dk = xp.zeros_like(q), xp.zeros_like(k)
    dw = xp.zeros_like(q[:, 0, :]) if q.shape[1] else xp.zeros_like(saved.w[None, :])  # (N, A): each entry has its own

    def block(n: slice, rows: slice) -> None:
        tanh = xp.tanh(q[n, rows, None, :] + k[n, None, :, :])  # (n, r, T_k, A)
        d = dscores[n, rows, :]
        dw[n, :] += xp.sum(tanh * d[..., None], axis=(1, 2))
        tanh *= tanh
        dsum = (1 - tanh) * (d[..., None] * saved.w)
        dq[n, rows, :] = xp.sum(dsum, axis=2)
        dk[n, ...] += xp.sum(dsum, axis=1)

    _in_blocks(backend, block, q, k)
    dq, dk, dv, dw = (narrow(backend, d, dout.dtype) for d in (dq, dk, dv, xp.sum(dw, axis=0)))
    return dq, dk, dv, dw


def _in_blocks(backend: Backend, block: Callable[[slice, slice], Any], q: Array, k: Array) -> None:
    """Call `block` with entries and rows of queries, so that (n, r, T_k, A) numbers are not too many at a time."""
    N, T_q, A = q.shape
    itemsize = float_bits(backend.xp, q.dtype) // 8
    row_bytes = k.shape[1] * A * itemsize
    at_once = min(T_q, backend.block_of_scores(T_q, k.shape[1] * A, itemsize)[0])

    def entries(n: slice) -> None:
        for first in range(0, T_q, max(1, at_once)):
            block(n, slice(first, min(first + at_once, T_q)))

    backend.map(entries, backend.chunks(N, 2 * max(1, at_once) * row_bytes))
