"""Attention as plainly as it can be said: the page to read first, and the way of small calls without options.

`dense` and `tiled` compute the same for masks, positions, half precision and long sequences, block by block.
"""

from __future__ import annotations

from typing import NamedTuple

from attnbackends import Array, Backend

from ..arrays import softmax_vjp
from ..checks import check


class SavedPlain(NamedTuple):
    """What `backward` needs."""

    backend: Backend
    q: Array  # (..., T_q, D)
    k: Array  # (..., T_k, D)
    v: Array | None  # (..., T_k, D_v); None where keys are the values
    scale: float
    kept: Array  # weights (..., T_q, T_k)

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k), an array of its own at each call."""
        return self.backend.xp.astype(self.kept, self.kept.dtype, copy=True)


def forward(backend: Backend, q: Array, k: Array, v: Array | None, scale: float) -> tuple[Array, SavedPlain]:
    """``softmax(scale * q @ k.T) @ v``; without v, keys are the values."""
    scores = backend.matmul(q, k.mT)  # (..., T_q, D) x (..., D, T_k) -> (..., T_q, T_k)
    scores *= scale
    weights = backend.softmax(scores)
    out = backend.matmul(weights, k if v is None else v)  # (..., T_q, T_k) x (..., T_k, D_v) -> (..., T_q, D_v)
    return out, SavedPlain(backend, q, k, v, scale, weights)


def backward(saved: SavedPlain, dout: Array) -> tuple[Array, ...]:
    """dq, dk, dv; or dq, dk where keys are the values, dk being the sum of both."""
    _check(saved, dout)
    backend, q, k, v, scale, weights = saved
    dweights = backend.matmul(dout, (k if v is None else v).mT)  # (..., T_q, D_v) x (..., D_v, T_k) -> (..., T_q, T_k)
    dscores = softmax_vjp(backend, weights, dweights)
    dscores *= scale
    dq = backend.matmul(dscores, k)  # (..., T_q, T_k) x (..., T_k, D) -> (..., T_q, D)
    if v is None:  # one product is faster than two and their sum
        xp = backend.xp
        both, of_both = xp.concat((dscores, weights), axis=-2), xp.concat((q, dout), axis=-2)
        return dq, backend.matmul(both.mT, of_both)  # (..., T_k, 2 T_q) x (..., 2 T_q, D) -> (..., T_k, D)
    dk = backend.matmul(dscores.mT, q)  # (..., T_k, T_q) x (..., T_q, D) -> (..., T_k, D)
    return dq, dk, backend.matmul(weights.mT, dout)  # (..., T_k, T_q) x (..., T_q, D_v) -> (..., T_k, D_v)


def _check(saved: SavedPlain, dout: Array) -> None:
    """Hold an incoming gradient against the output: library, device, dtype and shape."""
    q, v = saved.q, saved.k if saved.v is None else saved.v
    shape = (*q.shape[:-1], v.shape[-1])
    if type(dout) is type(q) and dout.shape == shape and dout.dtype == q.dtype and dout.device == q.device:
        return
    check(q=(q, "*"), dout=(dout, "*"))
    if tuple(dout.shape) != shape:
        raise ValueError(
            f"`dout` must have the shape of what the forward pass returned, {shape}, got {tuple(dout.shape)}"
        )
