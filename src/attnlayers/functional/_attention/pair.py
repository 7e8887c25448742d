"""Attention: softmax of scaled dot products, used to weight a sum. Every attention layer calls this pair."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

from attnbackends import Array, Backend, OwnAttention, backend_of, float_bits

from ..checks import check
from ..dtypes import narrow, widen
from ..integers import integer
from . import plain
from .again import attention_again, kind_of, remember
from .dense import Dense
from .form import Form
from .gradients import OutputGrads
from .problem import Problem
from .run import Result, SavedAttention, backward, log_sum_exp, run_dense, run_tiled

KEEP_BYTES = 32 * 1024**2
"""Bytes of weights that are kept for backward by default; making more of them again is as fast beyond a core's caches
(benchmarks/NOTES.md)."""

PLAIN_WORK = 12_000_000
"""Operations of the two products of forward up to which `plain` serves a call: half a millisecond of one core. Larger
ones are worth laying out blocks for threads."""


def attention(
    q: Array,
    k: Array,
    v: Array | None = None,
    *,
    scale: float | None = None,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    query_start: int | str | Sequence[int] | Array | None = None,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Array | Sequence[int] | None = None,
    query_offsets: Array | Sequence[int] | None = None,
    key_offsets: Array | Sequence[int] | None = None,
    grouped: bool = False,
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    return_weights: bool = False,
    return_lse: bool = False,
    keep_bytes: int = KEEP_BYTES,
) -> tuple[Any, ...]:
    """Scaled dot product attention, ``softmax(scale * q @ k.T) @ v``.

    Parameters
    ----------
    q : array (..., T_q, D)
        Queries. Leading axes of q, k and v broadcast.
    k : array (..., T_k, D)
        Keys.
    v : array (..., T_k, D_v), optional
        Values. Without them the keys are the values, as in the book's `TimeAttention`, and have one gradient.
    scale : float, optional
        Default ``1 / sqrt(D)``. The book's layers use 1.
    mask : boolean array, optional
        Broadcasts to (..., T_q, T_k); True = attend. A query that attends to nothing, by the mask and by position
        together, gets 0, and a key that no query attends to is not looked at, whatever it holds.
    bias : array, optional
        Broadcasts to (..., T_q, T_k): added to the scores.
    causal : bool
        A query sees the keys at its own position and before.
    query_start : int, "start", "end" or integer array (N,), optional
        Position of the first query among the keys, for `causal` and `window`: 0 for ``"start"``; for ``"end"`` such
        that the last query stands at the last valid key. May be left out where T_q = T_k. A query before the first
        key sees nothing.
    window : (int or None, int or None), optional
        How many keys before and after its position a query sees; None is unbounded.
    key_lengths : integers (N,), optional
        Valid keys of each entry of the first axis; keys past them are not read.
    query_offsets, key_offsets : integers (S + 1,), optional
        Packed sequences: the queries from ``query_offsets[i]`` to ``query_offsets[i + 1]`` see the keys from
        ``key_offsets[i]`` to ``key_offsets[i + 1]`` alone. `key_offsets` may be left out where they are the same.
    grouped : bool
        q is (..., G * H_kv, T_q, D) where k and v are (..., H_kv, T_k, ·): G consecutive query heads share a key
        head, which is not copied.
    softcap : float, optional
        Scores become ``softcap * tanh(scores / softcap)``, before the bias. Infinity is no cap.
    sinks : array, optional
        Broadcasts to the leading axes of the output: a logit for each row that takes weight and adds nothing.
    dropout : float
        Share of the weights that are dropped, 0 <= dropout < 1.
    seed : int
        Of the dropped weights; backward draws them again instead of keeping them. One seed drops the same weights at
        every call, so that `dropout` must come with a seed, another one for each step of training.
    return_weights, return_lse : bool
        Whether to return the weights (..., T_q, T_k), before dropout, and the log-sum-exp of the scores (..., T_q),
        sinks included: -inf for a query that attends to nothing.
    keep_bytes : int
        Weights up to this size in all are kept for backward; above it they are made again block by block, and
        memory grows with T alone.

    Returns
    -------
    out : array (..., T_q, D_v)
        In the dtype of the arguments; half precision is computed in float32.
    weights, lse : array
        As asked for.
    saved : SavedAttention
        For `attention_backward`; ``saved.weights`` are the attention weights.

    Raises
    ------
    TypeError, ValueError, BackendError
        For arguments that do not fit each other.

    Notes
    -----
    Positions, lengths, offsets, sides of a window and seeds are integers of Python or NumPy, or integer arrays; True
    and 2.0 are none. A position may be 2**61 at most, the side of a window anything.

    Gradients are right however far the scores of a row are shifted, with one exception: cuDNN, which CUDA uses in half
    precision where its extra is installed, keeps the log-sum-exp of a row in float32 and nothing else. Its rounding
    shows in gradients from scores of 2**13 on in float16, and of 2**16 in bfloat16.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.2.1.
    Deep Learning from Scratch 2, section 8.1 (there with ``scale=1``).

    Examples
    --------
    >>> import numpy as np
    >>> q = k = v = np.eye(2, dtype=np.float32)
    >>> out, saved = attention(q, k, v, scale=100.0)
    >>> out.round(3)
    array([[1., 0.],
           [0., 1.]], dtype=float32)

    What each option hides or does shows in the weights of equal scores:

    >>> q, k, v = np.zeros((2, 2, 8)), np.zeros((2, 3, 8)), np.ones((2, 3, 4))
    >>> def weights(entry=0, **options):
    ...     return attention(q, k, v, **options)[-1].weights[entry].round(2)
    >>> weights(mask=np.array([True, True, False]))
    array([[0.5, 0.5, 0. ],
           [0.5, 0.5, 0. ]])
    >>> weights(bias=np.log([1.0, 1.0, 2.0]))
    array([[0.25, 0.25, 0.5 ],
           [0.25, 0.25, 0.5 ]])
    >>> weights(causal=True, query_start="end")
    array([[0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]])
    >>> weights(causal=True, query_start=[0, -1], entry=1)
    array([[0., 0., 0.],
           [1., 0., 0.]])
    >>> weights(window=(1, 0), query_start="start")
    array([[1. , 0. , 0. ],
           [0.5, 0.5, 0. ]])
    >>> weights(key_lengths=[3, 1], entry=1)
    array([[1., 0., 0.],
           [1., 0., 0.]])
    >>> weights(query_offsets=[0, 1, 2], key_offsets=[0, 2, 3])
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 1. ]])
    >>> weights(sinks=np.log([1.0, 5.0]), entry=1)
    array([[0.12, 0.12, 0.12],
           [0.12, 0.12, 0.12]])
    >>> attention(np.zeros((6, 2, 8)), k, v, grouped=True)[0].shape  # three query heads share a key head
    (6, 2, 4)
    >>> large = attention(100 * np.eye(2), np.eye(2), np.eye(2), scale=1.0, softcap=1.0, return_lse=True)
    >>> large[1].round(3)
    array([1.313, 1.313])
    >>> out, w, lse, saved = attention(q, k, v, dropout=0.5, seed=3, return_weights=True, return_lse=True)
    >>> dq, dk, dv = attention_backward(saved, np.ones_like(out), dweights=w, dlse=lse)
    """
    kind = None
    if (
        mask is bias is sinks is query_start is key_lengths is query_offsets is key_offsets is None
        and window is None
        and softcap is None
        and not (causal or grouped or dropout or return_weights or return_lse)
        and getattr(q, "ndim", 0) >= 2
    ):
        backend = backend_of(q=q, k=k) if v is None else backend_of(q=q, k=k, v=v)
        if backend.on_host:
            if _is_plain(backend, q, k, v, keep_bytes):
                return plain.forward(backend, q, k, v, _scale(scale, q))
        elif (kind := kind_of(backend, q, k, v, scale, keep_bytes)) and (
            found := attention_again(kind, backend, q, k, v)
        ):
            return found
    backend = check(
        q=(q, "* T_q D"),
        k=(k, "* T_k D"),
        v=(v, "* T_k D_v"),
        mask=(mask, "*: bool"),
        bias=(bias, "*"),
        sinks=(sinks, "*"),
    )
    if type(keep_bytes) is not int or keep_bytes < 0:
        keep_bytes = integer("keep_bytes", keep_bytes, least=0)
    positions = causal, query_start, window, key_lengths, query_offsets, key_offsets
    form = Form.of(backend, q, k, v, grouped, *positions)
    problem = Problem.of(
        backend, form, q, k, v, _scale(scale, q), mask, bias, softcap, sinks, dropout, seed, keep_bytes
    )
    layout, xp = form.layout, backend.xp
    result: Result | None = None if return_weights else backend.attention(problem)
    if isinstance(result, OwnAttention):
        out = result.out
    elif return_weights or (softcap is None and problem.weights_bytes <= keep_bytes):
        out = backend.empty((*problem.q.shape[:2], problem.values.shape[-1]), like=q)
        result = run_dense(problem, out)
    else:
        result = run_tiled(problem)
        out = xp.astype(result.out, q.dtype, copy=True)
    further_inputs = () if bias is sinks is None else (("bias", bias), ("sinks", sinks))
    shapes = {name: tuple(x.shape) for name, x in further_inputs if x is not None}
    saved = SavedAttention(problem, layout, result, shapes)
    if kind is not None:
        remember(kind, saved)
    further: list[Array] = []
    if return_weights:
        further.append(narrow(backend, saved.weights, q.dtype))
    if return_lse:
        lse = log_sum_exp(xp, result)
        further.append(layout.unflatten(xp, narrow(backend, lse, q.dtype))[..., 0])
    return layout.unflatten(xp, out), *further, saved


def attention_backward(
    saved: SavedAttention | plain.SavedPlain,
    dout: Array,
    *,
    dweights: Array | None = None,
    dlse: Array | None = None,
    grads: Sequence[str] = (),
) -> tuple[Array, ...]:
    """Gradients of `attention`.

    Parameters
    ----------
    saved : SavedAttention or SavedPlain
    dout : array (..., T_q, D_v)
    dweights : array (..., T_q, T_k), optional
        Gradient of the weights, if they were returned.
    dlse : array (..., T_q), optional
        Gradient of the log-sum-exp, if it was returned.
    grads : sequence of "bias" and "sinks"
        Further gradients: of the bias, summed over what was broadcast, and of the sinks.

    Returns
    -------
    dq, dk, dv : arrays of the shapes of q, k and v
        Or ``dq, dk`` where keys were the values, dk being the sum of both; then those that `grads` names, in its order.
    """
    if isinstance(saved, plain.SavedPlain):
        if dweights is not None or dlse is not None or grads:
            raise ValueError("`dweights`, `dlse` and `grads` need a forward that was asked for what they belong to")
        return plain.backward(saved, dout)
    if not isinstance(saved, SavedAttention):
        raise TypeError(f"`saved` must be what attention returned, got {type(saved).__name__}")
    problem, flat = saved.problem, saved.flat_gradient
    if dweights is not None and not isinstance(saved.result, Dense):
        raise ValueError("`dweights` needs weights that were returned: call attention with return_weights=True")
    if grads and set(grads) - set(saved.shapes):
        raise ValueError(f"`grads` may name 'bias' and 'sinks' where they were given, got {sorted(grads)}")
    incoming = OutputGrads(
        flat("dout", dout, (problem.values.shape[-1],)),
        None if dweights is None else flat("dweights", dweights, (problem.k.shape[1],)),
        None if dlse is None else widen(problem.backend, flat("dlse", dlse, ())),
    )
    return backward(saved, incoming, grads)


def _scale(scale: float | None, q: Array) -> float:
    return 1 / sqrt(max(1, q.shape[-1])) if scale is None else float(scale)


def _is_plain(backend: Backend, q: Array, k: Array, v: Array | None, keep_bytes: int) -> bool:
    """Whether a call without options is small and right, with nothing to broadcast or to widen."""
    values = k if v is None else v
    (*lead, T_q, D), dtype = q.shape, q.dtype
    if not (k.ndim == values.ndim == q.ndim and k.shape[-1] == D and dtype == k.dtype == values.dtype):
        return False
    T_k, scores = k.shape[-2], prod(lead) * T_q * k.shape[-2]
    fit = [*k.shape[:-2]] == lead and [*values.shape[:-1]] == [*lead, T_k] and type(keep_bytes) is int
    if not (fit and 0 < 2 * scores * (D + values.shape[-1]) <= PLAIN_WORK and 8 * scores <= keep_bytes):
        return False
    return float_bits(backend.xp, dtype) >= 32
