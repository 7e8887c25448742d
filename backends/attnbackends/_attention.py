"""Attention as a whole: what a library is given, and what it gives back where it has a way of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Array = Any


class Visible(Protocol):
    """Which keys a query may see by its position."""

    @property
    def T_q(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def entries_each(self) -> int: ...
    @property
    def start(self) -> np.ndarray: ...
    @property
    def left(self) -> int | None: ...
    @property
    def right(self) -> int | None: ...
    @property
    def lengths(self) -> np.ndarray | None: ...
    @property
    def offsets(self) -> tuple[np.ndarray, np.ndarray] | None: ...


class Flat(Protocol):
    """A mask or a bias as it came."""

    def flat(self) -> Array:
        """(B or 1, R or T_q or 1, T_k or 1): of each entry and row, which may share one."""

    def by_entry(self) -> tuple[Array, int]:
        """The same as (M, R or T_q or 1, T_k or 1), and `each`: entry b has number ``b // each % M``."""


class AttentionCall(Protocol):
    """One call of attention in flat form: ``softmax(scale * q @ k.T) @ v`` for each of B entries.

    Attributes
    ----------
    q : array (B, R, D)
        Query heads that share keys stand as further rows: R = groups * T_q.
    k : array (B, T_k, D)
    v : array (B, T_k, D_v) or None
        Of the dtype of q; None where keys are the values. No array is promised to be contiguous.
    scale : float
    visibility : Visible
        What positions hide. `start` has one number for all, for each entry of the batch, or for each packed sequence;
        `lengths` has one for each entry of the batch, which is `entries_each` flat entries.
    mask : Flat or None
        Boolean, True = attend, on top of what positions hide.
    bias : Flat or None
        Added to the scores.
    softcap : float or None
    sinks : array (B, R, 1) or None
    dropout : float
        Share of the weights that are dropped: where `Backend.uniform` of `stream` is below it, for R rows of T_k keys.
    stream : int
        A key of `Backend.uniform`.
    first_entry : int
        Where entry 0 stands among those that are drawn for.
    keep_bytes : int
        Bytes of weights that may be kept for backward.
    """

    @property
    def q(self) -> Array: ...
    @property
    def k(self) -> Array: ...
    @property
    def v(self) -> Array | None: ...
    @property
    def scale(self) -> float: ...
    @property
    def visibility(self) -> Visible: ...
    @property
    def mask(self) -> Flat | None: ...
    @property
    def bias(self) -> Flat | None: ...
    @property
    def softcap(self) -> float | None: ...
    @property
    def sinks(self) -> Array | None: ...
    @property
    def dropout(self) -> float: ...
    @property
    def stream(self) -> int: ...
    @property
    def first_entry(self) -> int: ...
    @property
    def keep_bytes(self) -> int: ...


class OwnAttention:
    """What a library's own attention returns.

    Attributes
    ----------
    out : array (B, R, D_v)
        In the dtype of q, the caller's to write to. A row that sees nothing is 0; a key that no query sees may hold
        anything.
    lse : array (B, R, 1)
        Log-sum-exp of each row's scores, -inf where it sees nothing; float32 for half precision.
    """

    out: Array
    lse: Array

    def backward(
        self, dout: Array, dlse: Array | None, dsinks: Array | None = None
    ) -> tuple[Array, Array, Array | None] | None:
        """Gradients of q, k and v in the dtype of q.

        Parameters
        ----------
        dout : array (B, R, D_v)
            Of the dtype of q, perhaps not contiguous.
        dlse : array (B, R, 1) or None
            Of the dtype of `lse`.
        dsinks : array (B, R, 1) or None
            Where the gradient of the sinks is put, contiguous and of their dtype, if it is asked for.

        Returns
        -------
        (dq, dk, dv) or None
            dv is None where keys are the values, and dk the sum of both gradients. None: there is no such way.
        """
        raise NotImplementedError

    def again(self) -> Callable[[Array, Array, Array | None], OwnAttention | None] | None:
        """What serves further calls that differ from this one in the numbers of q, k and v alone; None: nothing does.

        It is given q, k and v (None where keys are the values) of the shapes and the dtype of this call, and returns
        None where they lie in memory, or on a device, in another way. It holds no array.
        """
        return None
