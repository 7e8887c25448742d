"""Attention by the library's own kernels, for the calls that it has some for."""

from __future__ import annotations

import numpy as np

from attnbackends import Array, AttentionCall

from .core import Core, Incoming


def forward(core: Core) -> tuple[Core, Array] | None:
    """The call as backward needs it, and the output (B, R, D_v); None where the library has no way of its own."""
    call = _call(core)
    if call is None or core.out is None:
        return None
    backend = core.backend
    out = core.out if core.out.dtype == core.q.dtype else backend.empty(core.out.shape, like=core.q)
    if not backend.attention(call, out, core.stats):
        return None
    own = backend.xp.astype(out, out.dtype, copy=True) if backend.attention_backward_reads_out(call) else None
    return core._replace(out=own, weights=None), out


def backward(core: Core, incoming: Incoming, *, shared: bool) -> tuple[Array, ...] | None:
    """dq, dk and, unless `shared`, dv in flat form and the dtype of the arguments; None as in `forward`."""
    call = None if core.weights is not None else _call(core)
    if call is None:
        return None
    empty = core.backend.empty
    gradients = [empty(x.shape, like=x) for x in ((call.q, call.k) if shared else (call.q, call.k, call.v))]
    dq, dk, dv = gradients[0], gradients[1], None if shared else gradients[2]
    done = core.backend.attention_backward(call, core.out, core.stats, incoming.dout, incoming.dlse, dq, dk, dv)
    return tuple(gradients) if done else None


def _call(core: Core) -> AttentionCall | None:
    """What a library's own attention is told; None where no library has what is asked for."""
    if not core.backend.has_whole_attention:
        return None
    visibility, mask = core.visibility, core.mask
    plain = core.softcap is None and core.sinks is None and not core.dropout and visibility.offsets is None
    if not plain or core.v is None or 0 in (*core.q.shape, *core.v.shape):
        return None
    if mask is not None and not core.backend.is_dtype(mask.dtype, "bool"):
        return None

    def of_each(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, visibility.entries_each)  # (N,) -> (B,)

    start, lengths = visibility.start, visibility.lengths
    return AttentionCall(
        q=core.q,
        k=core.k,
        v=core.v,
        scale=core.scale,
        groups=visibility.groups,
        left=visibility.left,
        right=visibility.right,
        start=int(start[0]) if len(start) == 1 else of_each(start),
        lengths=None if lengths is None else of_each(lengths),
        mask=mask,
    )
