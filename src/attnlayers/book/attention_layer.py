"""The layers of the book's ``ch08.attention_layer``."""

import sys
from typing import Any

import numpy

from .. import layers
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


class TimeAttention(WithoutWeights, layers.TimeAttention):
    """Attention of all decoder steps at once; `attention_weights` are arrays of NumPy."""

    @property
    def attention_weights(self) -> "list[numpy.ndarray] | None":
        """T_dec arrays (N, T_enc) of the last forward, on the host: scripts draw them."""
        listed = super().attention_weights
        return None if listed is None else [to_host(a) for a in listed]

    def forward(self, hs_enc: Any, hs_dec: Any, mask: Any = None) -> Any:
        """hs_enc (N, T_enc, H), hs_dec (N, T_dec, H) -> (N, T_dec, H)."""
        return super().forward(hs_enc, floats(hs_enc, hs_dec), mask)
