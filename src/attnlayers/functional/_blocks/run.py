"""A call of attention from its arguments in flat form to its results, and back: by the way that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from math import e, log2, sqrt
from typing import Any, NamedTuple

from attnbackends import Array, Backend

from .._dtypes import narrow, wide, widen
from . import arguments, fused, kept, tiled
from .core import Core, Incoming, Outgoing
from .plan import Chain, Visibility, plan


class SavedAttention(NamedTuple):
    """What the backward of `attention` and `attention_weights` needs."""

    core: Core
    frame: arguments.Frame
    dtype: Any  # of the arguments

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k), before dropout; float32 where the arguments were in half precision.

        Made anew at each call where they were not kept.
        """
        core = self.core
        if core.weights is None:
            B, R, T_k = core.q.shape[0], core.q.shape[1], core.k.shape[1]
            room = core.backend.empty((B, R, T_k), like=core.q, dtype=wide(core.backend, self.dtype))
            core = core._replace(weights=room, out=None, stats=None)
            run(core)
        return self.frame.unflatten(core.backend.xp, core.weights)


def prepare(
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
    return_lse: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
) -> Core:
    """Flatten the arguments, lay out the blocks, and make room for the results.

    Weights of up to `keep_bytes` are kept in any case, and the statistics of rows where something needs them.
    """
    xp = backend.xp
    if softcap is not None and not softcap > 0:
        raise ValueError(f"`softcap` must be positive, got {softcap}")
    flat_q, flat_k = frame.flatten_queries(xp, q), frame.flatten(xp, k)
    flat_v = None if v is None else flat_k if v is k else frame.flatten(xp, v)
    B, R, D = flat_q.shape
    T_k, dtype = flat_k.shape[1], wide(backend, q.dtype)
    itemsize = backend.bits(dtype) // 8
    width = D + (0 if flat_v is None else flat_v.shape[-1])
    entry_bytes = itemsize * (R * T_k + (R + T_k) * width)
    chains = plan(backend, visibility, B, itemsize * T_k, entry_bytes, 2 * R * T_k * width)
    keep = keep or (softcap is None and itemsize * B * R * T_k <= keep_bytes)
    scale = 1 / sqrt(max(1, D)) if scale is None else float(scale)
    flat_mask = None if mask is None else frame.flatten_mask(xp, mask)
    additive = mask is not None and not backend.is_dtype(mask.dtype, "bool")
    ask = backend.reading_is_free and not additive and sinks is None and 0 not in (B, R, T_k)

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
        dropout=dropout,
        seed=seed,
        bounds={} if ask else None,
        unit=log2(e) if ask and backend.has_fast_exp2(dtype) else 1.0,
        out=None if flat_v is None else room(B, R, flat_v.shape[-1], of=q.dtype if keep else dtype),
        stats=room(2, B, R, 1) if return_lse or not keep or sinks is not None or backend.has_whole_attention else None,
        weights=room(B, R, T_k) if keep else None,
    )


def run(core: Core) -> None:
    """Write the results of a call into the room that was made for them, without kernels of the library's own."""
    way = tiled if core.weights is None else kept
    core.backend.map(lambda chain: way.forward(core, chain), core.chains)


def backward(saved: SavedAttention, incoming: Incoming, *, shared: bool, also: Sequence[str] = ()) -> tuple[Array, ...]:
    """Gradients of q, k and, unless `shared`, v, then those that `also` names, in the shapes of the arguments."""
    core, frame = saved.core, saved.frame
    backend, xp = core.backend, core.backend.xp
    unknown = set(also) - {"mask", "sinks"}
    if unknown or ("sinks" in also and core.sinks is None):
        raise ValueError(f"`also` may name 'mask' and 'sinks' where they were given, got {sorted(also)}")
    if "mask" in also and (core.mask is None or backend.is_dtype(core.mask.dtype, "bool")):
        raise ValueError("`also` names 'mask', but there was no floating point mask that could have a gradient")
    own = fused.backward(core, incoming, shared=shared)
    if own is not None:
        return tuple(frame.unflatten_gradient(xp, d, name) for d, name in zip(own, "qkv", strict=False))
    dtype = wide(backend, saved.dtype)
    shares = 1 + max((chain.share for chain in core.chains), default=0)

    def room(like: Array) -> Array:
        return backend.empty(tuple(like.shape), like=like, dtype=dtype)

    dk = [room(core.k) for _ in range(shares)]
    dv = [] if core.v is None else dk if shared else [room(core.v) for _ in range(shares)]
    dmask = xp.zeros_like(widen(backend, core.mask)) if "mask" in also else None
    dsinks = xp.zeros_like(core.stats[1, ...]) if "sinks" in also else None  # type: ignore[index]
    outgoing = Outgoing(room(core.q), dk, dv, dmask, dsinks)

    way = tiled if core.weights is None else kept

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
    return tuple([narrow(backend, gradient, saved.dtype) for gradient in gradients])
