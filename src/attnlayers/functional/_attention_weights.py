"""The weights of attention alone, for layers that weight and sum in two steps."""

from attnbackends import Array

from ._blocks import arguments
from ._blocks.core import Incoming
from ._blocks.run import SavedAttention, backward, prepare, run
from ._check import check
from ._dtypes import narrow


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
    saved : SavedAttention
    """
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), mask=(mask, "*: mask"))
    frame = arguments.Frame.of(q, k, None, grouped=False)
    visibility = arguments.visibility(frame)
    core = prepare(backend, frame, visibility, q, k, None, scale, mask, None, None, 0, keep=True)
    run(core)
    saved = SavedAttention(core, frame, q.dtype)
    return narrow(backend, saved.weights, q.dtype), saved


def attention_weights_backward(saved: SavedAttention, dweights: Array) -> tuple[Array, ...]:
    """Gradients of `attention_weights`: dweights (..., T_q, T_k) -> dq, dk."""
    flat = saved.frame.flatten_gradient(saved.core, "dweights", dweights, (saved.core.k.shape[1],))
    return backward(saved, Incoming(None, flat, None), shared=True)
