"""Attention as a whole.

Here because CUDA has kernels that hold no scores in memory; NumPy and the standard have none.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any


def visible_keys(
    position: np.ndarray, keys: slice, left: int | None, right: int | None, lengths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """First and last of the `keys` that queries at a position see; none where the first comes after the last.

    Parameters
    ----------
    position : NumPy array (b or 1, R)
    keys : slice
    left, right : int or None
        As in `AttentionCall`.
    lengths : NumPy array (b or 1, 1) or None
        Valid keys.

    Returns
    -------
    first, last : NumPy arrays (b or 1, R)
    """
    first = np.full_like(position, keys.start) if left is None else np.maximum(position - left, keys.start)
    last = np.full_like(position, keys.stop - 1) if right is None else np.minimum(position + right, keys.stop - 1)
    return first, last if lengths is None else np.minimum(last, lengths - 1)


class AttentionCall(NamedTuple):
    """One call of attention in flat form: ``softmax(scale * q @ k.T) @ v`` for each of B entries.

    Attributes
    ----------
    q : array (B, R, D)
        Query heads that share keys stand as further rows: R = groups * T_q.
    k : array (B, T_k, D)
    v : array (B, T_k, D_v)
        Of the dtype of q; the very object k where keys are the values. No axis has length 0, and none is
        promised to be contiguous.
    scale : float
    groups : int
    left, right : int or None
        How many keys before and after its position a query sees; None is unbounded, causal is ``right == 0``.
    start : int or NumPy array (B,)
        Position among the keys of the first query of each head; may be negative.
    lengths : NumPy array (B,) or None
        Valid keys of each entry; 0 is allowed.
    mask : boolean array (B or 1, R or T_q or 1, T_k or 1), or None
        True = attend, on top of what positions hide.
    """

    q: Array
    k: Array
    v: Array
    scale: float
    groups: int
    left: int | None
    right: int | None
    start: int | np.ndarray
    lengths: np.ndarray | None
    mask: Array | None

    @property
    def T_q(self) -> int:
        return int(self.q.shape[1]) // self.groups


class WholeAttention:
    """Defaults: no library has a way of its own."""

    has_whole_attention = False
    """Whether `attention` is worth asking."""

    def attention(self, call: AttentionCall, out: Array, stats: Array) -> bool:
        """Attention by a way of the library's own, if it has one for this call.

        Parameters
        ----------
        call : AttentionCall
        out : array (B, R, D_v)
            Written to, in the dtype of q. A row that sees nothing becomes 0; a key that no query sees may hold
            anything.
        stats : array (2, B, R, 1)
            Written to: what makes weights again from scores, ``exp(score - stats[0]) * stats[1]``. The first is a row's
            largest score, 0 where it sees nothing; the second is one over the sum that belongs to it, and 0 there. They
            stand apart, because the logarithm of the sum would be lost in rounding beside a score of 1e8. float32 for
            half precision, contiguous.

        Returns
        -------
        bool
            False: there is no such way, and nothing was written that counts.
        """
        return False

    def attention_backward_reads_out(self, call: AttentionCall) -> bool:
        """Whether `attention_backward` needs the output of `attention`. If not, it takes every call that that took."""
        return True

    def attention_backward(
        self,
        call: AttentionCall,
        out: Array | None,
        stats: Array,
        dout: Array,
        dlse: Array | None,
        dq: Array,
        dk: Array,
        dv: Array | None,
    ) -> bool:
        """Gradients of `attention`, where `out` and `stats` came from it.

        Parameters
        ----------
        call : AttentionCall
        out : array (B, R, D_v) or None
            What `attention` wrote; None where `attention_backward_reads_out` says that it is not needed.
        stats : array (2, B, R, 1)
        dout : array (B, R, D_v)
            Of the dtype of q, perhaps not contiguous.
        dlse : array (B, R, 1) or None
            Gradient of the log-sum-exp, ``stats[0] - log(stats[1])``, in its dtype.
        dq, dk : arrays (B, R, D), (B, T_k, D)
            Written to, in the dtype of q.
        dv : array (B, T_k, D_v) or None
            Written to. None: keys are the values, and the sum of both gradients belongs in `dk`.

        Returns
        -------
        bool
            As for `attention`.
        """
        return False
