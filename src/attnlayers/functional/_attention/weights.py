"""The weights of attention alone, for layers that weight and sum in two steps."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from attnbackends import Array

from ..checks import check
from ..dtypes import narrow
from .form import Form
from .gradients import OutputGrads
from .problem import Problem
from .run import SavedAttention, backward, run_dense


class SavedWeights(NamedTuple):
    """What `attention_weights_backward` needs."""

    attention: SavedAttention


def attention_weights(
    q: Array, k: Array, *, scale: float | None = None, mask: Array | None = None
) -> tuple[Array, SavedWeights]:
    """The weights of `attention` alone, ``softmax(scale * q @ k.T)``.

    Parameters
    ----------
    q : array (..., T_q, D)
    k : array (..., T_k, D)
    scale, mask
        As in `attention`.

    Returns
    -------
    weights : array (..., T_q, T_k)
    saved : SavedWeights
    """
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), mask=(mask, "*: bool"))
    form = Form.of(backend, q, k, None)
    scale = 1 / sqrt(max(1, q.shape[-1])) if scale is None else float(scale)
    problem = Problem.of(backend, form, q, k, None, scale, mask)
    saved = SavedAttention(problem, form.layout, run_dense(problem, None), {})
    return narrow(backend, saved.weights, q.dtype), SavedWeights(saved)


def attention_weights_backward(saved: SavedWeights, dweights: Array) -> tuple[Array, ...]:
    """Gradients of `attention_weights`: dweights (..., T_q, T_k) -> dq, dk."""
    if not isinstance(saved, SavedWeights):
        raise TypeError(f"`saved` must be what attention_weights returned, got {type(saved).__name__}")
    attention = saved.attention
    flat = attention.flat_gradient("dweights", dweights, (attention.problem.k.shape[1],))
    return backward(attention, OutputGrads(None, flat, None), ())
