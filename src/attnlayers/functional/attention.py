"""Attention: softmax of scaled dot products, used to weight a sum. Every attention layer calls this pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import e, log2, sqrt
from typing import Any

from attnbackends import EMPTY_ROW, Array, Backend

from . import _arguments as arguments
from . import _fused, _kept, _tiled
from ._check import check
from ._core import Core, Incoming, Outgoing, bounded
from ._dtypes import wide, widen
from ._plan import Chain, Visibility, plan

KEEP_BYTES = 32 * 1024**2
"""Weights up to this size are kept for backward by default; making them again is as fast beyond a core's caches."""


@dataclass(frozen=True)
class SavedAttention:
    """What the backward of `attention` and `attention_weights` needs."""

    core: Core
    frame: arguments.Frame
    dtype: Any  # of the arguments
    mask_shape: tuple[int, ...] | None

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k), before dropout; float32 where the arguments were in half precision.

        Made anew at each call where they were not kept.
        """
        core = self.core
        if core.weights is None:
            B, R, T_k = core.q.shape[0], core.q.shape[1], core.k.shape[1]
            room = core.backend.empty((B, R, T_k), like=core.q, dtype=wide(core.backend, self.dtype))
            core = replace(core, weights=room, out=None, lse=None)
            _run(core)
        return self.frame.unflatten(core.backend.xp, core.weights)


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
        Broadcasts to (..., T_q, T_k). Boolean: True = attend; a query that attends to nothing gets 0, and a key
        that no query attends to is not looked at, whatever it holds. Floating point: added to the scores.
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
    core = _prepare(backend, frame, visibility, q, k, v, scale, mask, softcap, sinks, keep_bytes, return_weights)
    core = replace(core, dropout=dropout, seed=seed)
    xp = backend.xp
    fused = None if return_weights else _fused.forward(core)
    if fused is None:
        _run(core)
        flat_out = xp.astype(core.out, q.dtype, copy=core.weights is None)
    else:
        core, flat_out = fused
    out = frame.unflatten(xp, flat_out)
    saved = SavedAttention(core, frame, q.dtype, None if mask is None else tuple(mask.shape))
    further: list[Array] = []
    if return_weights:
        further.append(xp.astype(saved.weights, q.dtype, copy=True))
    if return_lse:
        lse = xp.astype(core.lse, core.lse.dtype, copy=True)  # type: ignore[union-attr]
        backend.fill(lse, lse == EMPTY_ROW, -xp.inf)
        further.append(frame.unflatten(xp, xp.astype(lse, q.dtype, copy=False))[..., 0])
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
    return _backward(saved, incoming, shared=shared, also=also)


def attention_weights(
    q: Array, k: Array, *, scale: float | None = None, mask: Array | None = None
) -> tuple[Array, SavedAttention]:
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
        `saved` shares it: not to be written to before `attention_weights_backward`.
    saved : SavedAttention
    """
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), mask=(mask, "*: mask"))
    frame = arguments.Frame.of(q, k, None, grouped=False)
    visibility = Visibility(q.shape[-2], k.shape[-2])
    core = _prepare(backend, frame, visibility, q, k, None, scale, mask, None, None, 0, keep=True)
    _run(core)
    saved = SavedAttention(core, frame, q.dtype, None if mask is None else tuple(mask.shape))
    return backend.xp.astype(saved.weights, q.dtype, copy=False), saved


def attention_weights_backward(saved: SavedAttention, dweights: Array) -> tuple[Array, ...]:
    """Gradients of `attention_weights`: dweights (..., T_q, T_k) -> dq, dk."""
    flat = saved.frame.flatten_gradient(saved.core, "dweights", dweights, (saved.core.k.shape[1],))
    return _backward(saved, Incoming(None, flat, None), shared=True)


def _prepare(
    backend: Backend,
    frame: arguments.Frame,
    visibility: Visibility,
    q: Array,
    k: Array,
    v: Array | None,
    scale: float | None,
    mask: Array | None,
    softcap: float | None,
    sinks: Array | None,
    keep_bytes: int,
    keep: bool,
) -> Core:
    """Flatten the arguments, lay out the blocks, and make room for the results."""
    xp = backend.xp
    if softcap is not None and not softcap > 0:
        raise ValueError(f"`softcap` must be positive, got {softcap}")
    flat_q, flat_k = frame.flatten_queries(xp, q), frame.flatten(xp, k)
    flat_v = None if v is None else flat_k if v is k else frame.flatten(xp, v)
    B, R, D = flat_q.shape
    T_k, dtype = flat_k.shape[1], wide(backend, q.dtype)
    itemsize = xp.finfo(dtype).bits // 8
    width = D + (0 if flat_v is None else flat_v.shape[-1])
    entry_bytes = itemsize * (R * T_k + (R + T_k) * width)
    chains = plan(backend, visibility, B, itemsize * T_k, entry_bytes, 2 * R * T_k * width)
    keep = keep or (softcap is None and itemsize * B * R * T_k <= keep_bytes)
    scale = 1 / sqrt(max(1, D)) if scale is None else float(scale)
    flat_mask = None if mask is None else frame.flatten_mask(xp, mask)
    additive = mask is not None and not backend.is_dtype(mask.dtype, "bool")

    safe = not additive and sinks is None and bounded(backend, flat_q, flat_k, scale)

    def room(*shape: int, of: Any = dtype) -> Array:
        return backend.empty(shape, like=q, dtype=of)

    return Core(
        backend=backend,
        q=flat_q,
        k=flat_k,
        v=flat_v,
        scale=scale,
        visibility=visibility,
        chains=chains,
        mask=flat_mask,
        softcap=softcap,
        sinks=None if sinks is None else widen(backend, frame.flatten_sinks(xp, sinks)),
        dropout=0.0,
        seed=0,
        bounded=safe,
        unit=log2(e) if safe and backend.has_fast_exp2(dtype) else 1.0,
        out=None if flat_v is None else room(B, R, flat_v.shape[-1], of=q.dtype if keep else dtype),
        lse=room(B, R, 1),
        weights=room(B, R, T_k) if keep else None,
    )


def _run(core: Core) -> None:
    way = _tiled if core.weights is None else _kept
    core.backend.map(lambda chain: way.forward(core, chain), core.chains)


def _backward(
    saved: SavedAttention, incoming: Incoming, *, shared: bool, also: Sequence[str] = ()
) -> tuple[Array, ...]:
    core, frame = saved.core, saved.frame
    backend, xp = core.backend, core.backend.xp
    unknown = set(also) - {"mask", "sinks"}
    if unknown or ("sinks" in also and core.sinks is None):
        raise ValueError(f"`also` may name 'mask' and 'sinks' where they were given, got {sorted(also)}")
    if "mask" in also and (core.mask is None or backend.is_dtype(core.mask.dtype, "bool")):
        raise ValueError("`also` names 'mask', but there was no floating point mask that could have a gradient")
    fused = _fused.backward(core, incoming, shared=shared)
    if fused is not None:
        return tuple(frame.unflatten_gradient(xp, d, name) for d, name in zip(fused, "qkv", strict=False))
    dtype = wide(backend, saved.dtype)
    shares = 1 + max((chain.share for chain in core.chains), default=0)

    def room(like: Array) -> Array:
        return backend.empty(tuple(like.shape), like=like, dtype=dtype)

    dk = [room(core.k) for _ in range(shares)]
    dv = [] if core.v is None else dk if shared else [room(core.v) for _ in range(shares)]
    dmask = xp.zeros_like(widen(backend, core.mask)) if "mask" in also else None
    dsinks = xp.zeros_like(core.lse) if "sinks" in also else None
    outgoing = Outgoing(room(core.q), dk, dv, dmask, dsinks)

    way = _tiled if core.weights is None else _kept

    def work(chains: Sequence[Chain]) -> None:
        for chain in chains:
            way.backward(core, chain, incoming, outgoing)

    one_by_one = dmask is not None  # chains may add to one place of it
    backend.map(work, [core.chains] if one_by_one else [[chain] for chain in core.chains])

    def total(parts: list[Array]) -> Array:
        first, *others = parts
        for other in others:
            first += other
        return first

    gradients = [frame.unflatten_gradient(xp, outgoing.dq, "q"), frame.unflatten_gradient(xp, total(dk), "k")]
    if not shared:
        gradients.append(frame.unflatten_gradient(xp, total(dv), "v"))
    for name in also:
        gradients.append(
            frame.unflatten_mask_gradient(xp, dmask) if name == "mask" else frame.unflatten_sinks_gradient(xp, dsinks)
        )
    return tuple(xp.astype(gradient, saved.dtype, copy=False) for gradient in gradients)
