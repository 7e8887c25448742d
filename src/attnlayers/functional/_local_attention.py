"""Local attention: a softmax over the keys near a centre, times a Gaussian around it.

The weights are kept for backward: this form belongs to the recurrent networks of 2015, whose sequences are short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attnbackends import Array, Backend

from .arrays import softmax_vjp, widen_seen
from .checks import check, check_gradient
from .dtypes import narrow, widen
from .integers import FARTHEST, integer


class SavedLocal(NamedTuple):
    """What `local_attention_backward` needs; all in the dtype to compute in."""

    backend: Backend
    q: Array  # (N, T_q, D)
    k: Array  # (N, T_k, D)
    v: Array  # (N, T_k, H)
    softmax: Array  # (N, T_q, T_k)
    near: Array  # (N, T_q, T_k), what the softmax is multiplied by
    slope: Array  # (N, T_q, T_k), (key - centre) / deviation**2
    weights: Array
    out: Array


def local_attention(
    q: Array, k: Array, v: Array, centres: Array, *, width: int, mask: Array | None = None
) -> tuple[Array, SavedLocal]:
    """Softmax over the keys within `width` of a centre, times a Gaussian around it, used to weight a sum.

    Parameters
    ----------
    q : array (N, T_q, D)
    k : array (N, T_k, D)
    v : array (N, T_k, H)
    centres : array (N, T_q)
        Where each query looks, a position among the keys; need not be whole.
    width : int
        Keys on either side that are looked at; the Gaussian's standard deviation is half of it.
    mask : boolean array (N, T_k), optional
        True = attend; what is left out may hold anything.

    Returns
    -------
    out : array (N, T_q, H)
    saved : SavedLocal
        ``saved.weights`` are (N, T_q, T_k), in float32 for half precision; they sum to 1 at most.

    References
    ----------
    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> q, k, v = np.zeros((1, 1, 1)), np.zeros((1, 3, 1)), np.array([[[5.0], [7.0], [9.0]]])
    >>> local_attention(q, k, v, np.array([[0.0]]), width=1)[1].weights.round(3)
    array([[[0.5  , 0.068, 0.   ]]])
    """
    backend = check(
        q=(q, "N T_q D"), k=(k, "N T_k D"), v=(v, "N T_k H"), centres=(centres, "N T_q"), mask=(mask, "N T_k: bool")
    )
    xp = backend.xp
    width = min(integer("width", width, least=1), FARTHEST)
    wide_q, wide_k, wide_v = widen(backend, q), widen_seen(backend, k, mask), widen_seen(backend, v, mask)
    positions = backend.asarray(np.arange(k.shape[1]), dtype=wide_q.dtype, like=k)
    apart = positions - widen(backend, centres)[..., None]  # (N, T_q, T_k)
    seen = xp.abs(apart) <= width
    seen = seen if mask is None else seen & mask[:, None, :]
    softmax = backend.softmax(backend.matmul(wide_q, xp.matrix_transpose(wide_k)), seen)
    slope = apart * (4 / width**2)
    near = xp.exp(-0.5 * apart * slope)
    weights = softmax * near
    out = narrow(backend, backend.matmul(weights, wide_v), q.dtype)
    return out, SavedLocal(backend, wide_q, wide_k, wide_v, softmax, near, slope, weights, out)


def local_attention_backward(saved: SavedLocal, dout: Array) -> tuple[Array, Array, Array, Array]:
    """Gradients of `local_attention`: dout (N, T_q, H) -> dq, dk, dv, dcentres.

    A centre moves the Gaussian; where its window begins and ends counts as fixed.
    """
    backend, xp = saved.backend, saved.backend.xp
    check_gradient("dout", dout, like=saved.out)
    wide_dout = widen(backend, dout)
    dv = backend.matmul(xp.matrix_transpose(saved.weights), wide_dout)  # (N, T_k, T_q) x (N, T_q, H)
    dweights = backend.matmul(wide_dout, xp.matrix_transpose(saved.v))  # (N, T_q, H) x (N, H, T_k)
    dcentres = xp.sum(dweights * saved.weights * saved.slope, axis=-1)
    dscores = softmax_vjp(backend, saved.softmax, dweights * saved.near)
    dq = backend.matmul(dscores, saved.k)
    dk = backend.matmul(xp.matrix_transpose(dscores), saved.q)
    dq, dk, dv, dcentres = (narrow(backend, d, dout.dtype) for d in (dq, dk, dv, dcentres))
    return dq, dk, dv, dcentres
