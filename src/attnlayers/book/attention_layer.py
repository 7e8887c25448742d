"""The layers of the book's ``ch08.attention_layer``."""

import sys
from typing import Any

import numpy

from attnbackends import Array

from .. import layers
from ..functional.checks import check
from ._arrays import floats, to_host
from .layers import Softmax, WithoutWeights
from .np import GPU, np

__all__ = ["GPU", "Attention", "AttentionWeight", "Softmax", "TimeAttention", "WeightSum", "np", "sys"]


class WeightSum(WithoutWeights, layers.WeightSum):
    """Context vector: encoder states summed with attention weights."""

    def forward(self, hs: Any, a: Any) -> Any:
        """hs (N, T, H), a (N, T) -> c (N, H)."""
        return super().forward(hs, floats(hs, a))


class AttentionWeight(WithoutWeights, layers.AttentionWeight):
    """Attention weights of one decoder state."""

    def forward(self, hs: Any, h: Any, mask: Any = None) -> Any:
        """hs (N, T, H), h (N, H) -> a (N, T)."""
        return super().forward(hs, floats(hs, h), mask)


class Attention(layers.Attention):
    """Attention of one decoder step; `attention_weight` is an array of NumPy."""

    @property
    def attention_weight(self) -> "numpy.ndarray | None":
        """(N, T) of the last forward, on the host: scripts draw it."""
        weight: numpy.ndarray | None = to_host(super().attention_weight)
        return weight

    def forward(self, hs: Any, h: Any, mask: Any = None) -> Any:
        """hs (N, T, H), h (N, H) -> c (N, H)."""
        return super().forward(hs, floats(hs, h), mask)


FEW_ROWS = 16
"""Decoder states for which three operations are faster than laying out blocks: answers are made one by one."""


class TimeAttention(WithoutWeights, layers.TimeAttention):
    """Attention of all decoder steps at once; `attention_weights` are arrays of NumPy."""

    _few: "tuple[Array, Array, Array] | None" = None

    @property
    def attention_weights(self) -> "list[numpy.ndarray] | None":
        """T_dec arrays (N, T_enc) of the last forward, on the host: scripts draw them."""
        if self._few is not None:
            weights = to_host(self._few[2])
            return [weights[:, t, :] for t in range(weights.shape[1])]
        listed = super().attention_weights
        return None if listed is None else [to_host(a) for a in listed]

    def forward(self, hs_enc: Any, hs_dec: Any, mask: Any = None) -> Any:
        """hs_enc (N, T_enc, H), hs_dec (N, T_dec, H) -> (N, T_dec, H)."""
        hs_dec, self._few = floats(hs_enc, hs_dec), None
        if mask is not None or hs_dec.shape[0] * hs_dec.shape[1] > FEW_ROWS or 0 in hs_enc.shape:
            return super().forward(hs_enc, hs_dec, mask)
        backend = check(hs_enc=(hs_enc, "N T_enc H"), hs_dec=(hs_dec, "N T_dec H"))
        k, q = (hs_enc[0, ...], hs_dec[0, ...]) if hs_enc.shape[0] == 1 else (hs_enc, hs_dec)
        weights = backend.softmax(backend.matmul(q, k.mT))  # (T_dec, H) x (H, T_enc)
        out = backend.matmul(weights, k)  # (T_dec, T_enc) x (T_enc, H)
        self._few = hs_enc, hs_dec, weights.reshape(*hs_dec.shape[:2], hs_enc.shape[1])
        return out.reshape(hs_dec.shape)

    def backward(self, dout: Any) -> Any:
        """dout (N, T_dec, H) -> dhs_enc (N, T_enc, H), dhs_dec (N, T_dec, H)."""
        if self._few is not None:
            hs_enc, hs_dec, _ = self._few
            super().forward(hs_enc, hs_dec)
        return super().backward(dout)
