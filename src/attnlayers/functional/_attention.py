"""Attention: softmax of scaled dot products, used to weight a sum. Every attention layer calls this pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnbackends import Array

from ._blocks import arguments, fused
from ._blocks.core import Incoming
from ._blocks.run import SavedAttention, backward, prepare, run
from ._check import check
from ._dtypes import narrow, widen

KEEP_BYTES = 32 * 1024**2
"""Weights up to this size are kept for backward by default; making them again is as fast beyond a core's caches."""


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None = None,
    mask: Array | None = None,
    causal: bool = False,
    query_start: int | str | Array | None = None,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Array | Sequence[int] | None = None,
    offsets: Array | Sequence[int] | tuple[Array | Sequence[int], Array | Sequence[int]] | None = None,
    grouped: bool = False,
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float = 0.0,
    seed: int = 0,
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
    v : array (..., T_k, D_v)
        Values.
    scale : float, optional
        Default ``1 / sqrt(D)``. The book's layers use 1.
    mask : array, optional
        Broadcasts to (..., T_q, T_k). Boolean: True = attend; a query that attends to nothing, by the mask and by
        position together, gets 0, and a key that no query attends to is not looked at, whatever it holds. Floating
        point: added to the scores.
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
    offsets : integers (S + 1,) or a pair of them, optional
        Packed sequences: queries and keys ``offsets[i]`` to ``offsets[i + 1]`` see each other alone. A pair
        has the offsets of queries and of keys.
    grouped : bool
        q is (..., G * H_kv, T_q, D) where k and v are (..., H_kv, T_k, ·): G consecutive query heads share a key
        head, which is not copied.
    softcap : float, optional
        Scores become ``softcap * tanh(scores / softcap)``, before the mask.
    sinks : array, optional
        Broadcasts to the leading axes of the output: a logit for each row that takes weight and adds nothing.
    dropout : float
        Share of the weights that are dropped, 0 <= dropout < 1.
    seed : int
        Of the dropped weights; backward draws them again instead of keeping them.
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
    >>> weights(mask=np.log([1.0, 1.0, 2.0]))
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
    >>> weights(offsets=([0, 1, 2], [0, 2, 3]))
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
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), v=(v, "* T_k D_v"), mask=(mask, "*: mask"), sinks=(sinks, "*"))
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}")
    frame = arguments.Frame.of(q, k, v, grouped)
    visibility = arguments.visibility(backend, frame, causal, query_start, window, key_lengths, offsets)
    kept = keep_bytes, return_weights, return_lse
    core = prepare(backend, frame, visibility, q, k, v, scale, mask, softcap, sinks, *kept, dropout, seed)
    xp = backend.xp
    own = None if return_weights else fused.forward(core)
    if own is None:
        run(core)
        flat_out = xp.astype(core.out, q.dtype, copy=core.weights is None)
    else:
        core, flat_out = own
    out = frame.unflatten(xp, flat_out)
    saved = SavedAttention(core, frame, q.dtype)
    further: list[Array] = []
    if return_weights:
        further.append(xp.astype(saved.weights, q.dtype, copy=True))
    if return_lse:
        lse = core.lse(...)
        backend.fill(lse, core.stats[1, ...] == 0, -xp.inf)  # type: ignore[index]
        further.append(frame.unflatten(xp, narrow(backend, lse, q.dtype))[..., 0])
    return out, *further, saved


def attention_backward(
    saved: SavedAttention,
    dout: Array,
    *,
    dweights: Array | None = None,
    dlse: Array | None = None,
    shared: bool = False,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """Gradients of `attention`.

    Parameters
    ----------
    saved : SavedAttention
    dout : array (..., T_q, D_v)
    dweights : array (..., T_q, T_k), optional
        Gradient of the weights, if they were returned.
    dlse : array (..., T_q), optional
        Gradient of the log-sum-exp, if it was returned.
    shared : bool
        Keys and values were one array: its gradient, the sum of both, comes back once.
    also : sequence of "mask" and "sinks"
        Further gradients: of an additive mask, summed over what was broadcast, and of the sinks.

    Returns
    -------
    dq, dk, dv : arrays of the shapes of q, k and v
        Or ``dq, dk`` with `shared`; then those that `also` names, in its order.
    """
    core = saved.core
    if core.v is None:
        raise ValueError("`saved` comes from attention_weights: its gradients are attention_weights_backward's")
    if shared and core.v is not core.k:
        raise ValueError("`shared` needs keys and values that were one and the same array in the forward pass")
    if dweights is not None and core.weights is None:
        raise ValueError("`dweights` needs weights that were returned: call attention with return_weights=True")
    flat = saved.frame.flatten_gradient
    lse = None if dlse is None else flat(core, "dlse", dlse, ())
    incoming = Incoming(
        flat(core, "dout", dout, (core.v.shape[-1],)),
        None if dweights is None else flat(core, "dweights", dweights, (core.k.shape[1],)),
        None if lse is None else widen(core.backend, lse),
    )
    return backward(saved, incoming, shared=shared, also=also)
