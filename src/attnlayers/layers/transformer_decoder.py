"""Decoder of the Transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnbackends import Array

from ._transformer import Norm, ResidualLayer, Stack
from .feed_forward import FeedForward
from .kv_cache import KVCache
from .multi_head import MultiHeadAttention


class TransformerDecoderLayer(ResidualLayer):
    """Causal self-attention, attention over another sequence, and a feed-forward network.

    Parameters
    ----------
    self_attention, cross_attention : MultiHeadAttention
    feed_forward : FeedForward
    norm1, norm2, norm3 : LayerNorm or RMSNorm
        In the order of the three.
    pre_norm, dropout, seed
        As in `TransformerEncoderLayer`.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TransformerDecoderLayer.create(8, heads=2, hidden_size=16)
    >>> layer.forward(np.ones((2, 3, 8), dtype=np.float32), np.ones((2, 5, 8), dtype=np.float32)).shape
    (2, 3, 8)
    """

    attentions = 2

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        cross_attention: MultiHeadAttention,
        feed_forward: FeedForward,
        norm1: Norm,
        norm2: Norm,
        norm3: Norm,
        *,
        pre_norm: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.self_attention, self.cross_attention, self.feed_forward = self_attention, cross_attention, feed_forward
        layers = {"self_attention": self_attention, "cross_attention": cross_attention, "feed_forward": feed_forward}
        super().__init__(layers, (norm1, norm2, norm3), pre_norm=pre_norm, dropout=dropout, seed=seed)

    def forward(self, x: Array, context: Array, mask: Array | None = None, *, causal: bool = True) -> Array:
        """x (N, T, D), context (N, T_k, D), mask (N, T_k) with True = attend -> (N, T, D)."""
        first, second, third = self.residuals
        out = third.forward(second.forward(first.forward(x, causal=causal), context, mask))
        self._saved = True
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T, D) -> dx (N, T, D), dcontext (N, T_k, D)."""
        self.saved()
        first, second, third = self.residuals
        (d,) = third.backward(dout)
        d, dcontext = second.backward(d)
        (dx,) = first.backward(d)
        return dx, dcontext

    def new_cache(self, context: Array, capacity: int) -> tuple[KVCache, KVCache]:
        """Caches for `step`: an empty one, and one of the context (N, T_k, D)."""
        return self.self_attention.new_cache(context.shape[0], capacity), self.cross_attention.cache_context(context)

    def step(self, x: Array, caches: tuple[KVCache, KVCache], mask: Array | None = None) -> Array:
        """Go on by one step or more: x (N, T, D), mask (N, T_k) -> (N, T, D)."""
        own, of_context = caches
        first, second, third = self.residuals
        x = first.around(x, lambda h: self.self_attention.step(h, own))
        x = second.around(x, lambda h: self.cross_attention.attend(h, of_context, mask))
        return third.around(x, self.feed_forward.forward)


class TransformerDecoder(Stack):
    """Decoder layers one after the other.

    Parameters
    ----------
    stack : sequence of TransformerDecoderLayer
    norm : LayerNorm or RMSNorm, optional
        After the last layer; usual where the layers have their norms before.

    Examples
    --------
    >>> import numpy as np
    >>> decoder = TransformerDecoder.create(2, 8, heads=2, hidden_size=16)
    >>> decoder.forward(np.ones((1, 3, 8), dtype=np.float32), np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 3, 8)
    """

    layer = TransformerDecoderLayer

    def forward(self, x: Array, context: Array, mask: Array | None = None, *, causal: bool = True) -> Array:
        """x (N, T, D), context (N, T_k, D), mask (N, T_k) with True = attend -> (N, T, D)."""
        for layer in self.stack:
            x = layer.forward(x, context, mask, causal=causal)
        return self.finish(x)

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T, D) -> dx (N, T, D), dcontext (N, T_k, D)."""
        d = self.finish_backward(dout)
        total: Any = None
        for layer in reversed(self.stack):
            d, dcontext = layer.backward(d)
            total = dcontext if total is None else total + dcontext
        return d, total

    def new_cache(self, context: Array, capacity: int) -> list[tuple[KVCache, KVCache]]:
        """Caches for `step`, a pair for each layer."""
        return [layer.new_cache(context, capacity) for layer in self.stack]

    def step(self, x: Array, caches: Sequence[tuple[KVCache, KVCache]], mask: Array | None = None) -> Array:
        """Go on by one step or more: x (N, T, D), mask (N, T_k) -> (N, T, D)."""
        for layer, own in zip(self.stack, caches, strict=True):
            x = layer.step(x, own, mask)
        return self.finish(x)
