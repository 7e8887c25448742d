"""Attention as plainly as it can be said: the page to read first, and the way of small calls without options.

`dense` and `tiled` compute the same for masks, positions and long sequences, block by block.
"""

from __future__ import annotations

from typing import NamedTuple

from attnbackends import Array, Backend

from ..checks import check
from ..dtypes import narrow, widen


class SavedPlain(NamedTuple):
    """What `backward` needs, in the dtype to compute in."""

    backend: Backend
    q: Array  # (..., T_q, D)
    k: Array  # (..., T_k, D)
    v: Array | None  # (..., T_k, D_v); None where keys are the values
    scale: float
    kept: Array  # weights (..., T_q, T_k)
    like: Array  # an argument of forward, for its dtype

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k), an array of its own at each call."""
        return self.backend.xp.astype(self.kept, self.kept.dtype, copy=True)


def forward(backend: Backend, q: Array, k: Array, v: Array | None, scale: float) -> tuple[Array, SavedPlain]:
    """``softmax(scale * q @ k.T) @ v``; without v, keys are the values."""
    like = q
    q, k, v = widen(backend, q), widen(backend, k), None if v is None else widen(backend, v)
    scores = backend.matmul(q, k.mT)  # (..., T_q, D) x (..., D, T_k) -> (..., T_q, T_k)
    scores *= scale
    weights = backend.softmax(scores)
    out = backend.matmul(weights, k if v is None else v)  # (..., T_q, T_k) x (..., T_k, D_v) -> (..., T_q, D_v)
    return narrow(backend, out, like.dtype), SavedPlain(backend, q, k, v, scale, weights, like)


def backward(saved: SavedPlain, dout: Array) -> tuple[Array, ...]:
    """dq, dk, dv; or dq, dk where keys are the values, dk being the sum of both."""
    backend, q, k, v, scale, weights, like = saved
    dtype = like.dtype
    _check(saved, dout)
    dout = widen(backend, dout)
    dv = backend.matmul(weights.mT, dout)  # (..., T_k, T_q) x (..., T_q, D_v) -> (..., T_k, D_v)
    dweights = backend.matmul(dout, (k if v is None else v).mT)  # (..., T_q, D_v) x (..., D_v, T_k) -> (..., T_q, T_k)
    dscores = backend.softmax_backward(weights, dweights)
    dscores *= scale
    dq = backend.matmul(dscores, k)  # (..., T_q, T_k) x (..., T_k, D) -> (..., T_q, D)
    dk = backend.matmul(dscores.mT, q)  # (..., T_k, T_q) x (..., T_q, D) -> (..., T_k, D)
    if v is None:
        dk += dv
        return narrow(backend, dq, dtype), narrow(backend, dk, dtype)
    return narrow(backend, dq, dtype), narrow(backend, dk, dtype), narrow(backend, dv, dtype)


def _check(saved: SavedPlain, dout: Array) -> None:
    """Hold an incoming gradient against the output: library, device, dtype and shape."""
    values = saved.k if saved.v is None else saved.v
    shape = (*saved.q.shape[:-1], values.shape[-1])
    if type(dout) is type(saved.like) and dout.shape == shape and dout.dtype == saved.like.dtype:
        return
    check(q=(saved.like, "*"), dout=(dout, "*"))
    if tuple(dout.shape) != shape:
        raise ValueError(
            f"`dout` must have the shape of what the forward pass returned, {shape}, got {tuple(dout.shape)}"
        )
