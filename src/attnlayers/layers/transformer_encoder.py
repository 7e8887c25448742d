"""Encoder of the Transformer."""

from __future__ import annotations

from collections.abc import Sequence

from attnbackends import Array

from ..functional.checks import check
from ._transformer import Norm, ResidualLayer, Stack, in_pieces
from .feed_forward import FeedForward
from .kv_cache import KVCache
from .multi_head import MultiHeadAttention


class TransformerEncoderLayer(ResidualLayer):
    """Self-attention and a feed-forward network, each with a residual connection and a norm.

    Parameters
    ----------
    attention : MultiHeadAttention
    feed_forward : FeedForward
    norm1, norm2 : LayerNorm or RMSNorm
    pre_norm : bool
        Norms before attention and feed-forward instead of after the sums.
    dropout : float
        Share that is dropped of what is added to the residual stream.
    seed : int
        Seed of what is dropped.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.1.
    Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020 (`pre_norm`).

    Examples
    --------
    >>> import numpy as np
    >>> layer = TransformerEncoderLayer.create(8, heads=2, hidden_size=16)
    >>> layer.forward(np.ones((2, 3, 8), dtype=np.float32)).shape
    (2, 3, 8)
    """

    attentions = 1

    def __init__(
        self,
        attention: MultiHeadAttention,
        feed_forward: FeedForward,
        norm1: Norm,
        norm2: Norm,
        *,
        pre_norm: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.attention, self.feed_forward = attention, feed_forward
        layers = {"attention": attention, "feed_forward": feed_forward}
        super().__init__(layers, (norm1, norm2), pre_norm=pre_norm, dropout=dropout, seed=seed)

    def forward(self, x: Array, mask: Array | None = None, *, causal: bool = False, bias: Array | None = None) -> Array:
        """x (N, T, D), mask (N, T) with True = attend, `causal` and `bias` as in MultiHeadAttention -> (N, T, D)."""
        first, second = self.residuals
        out = second.forward(first.forward(x, None, mask, causal=causal, bias=bias))
        self._saved = True
        return out

    def backward(self, dout: Array) -> Array:
        """dout (N, T, D) -> dx (N, T, D)."""
        self.saved()
        first, second = self.residuals
        (d,) = second.backward(dout)
        (dx,) = first.backward(d)
        return dx

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache for `step`."""
        return self.attention.new_cache(batch_size, capacity)

    def step(self, x: Array, cache: KVCache, mask: Array | None = None, *, last: int | None = None) -> Array:
        """Go on by one step or more: x (N, T, D), mask (N, all steps so far) -> (N, T, D), as `causal` gives it.

        With `last`, only that many of the last steps come out.
        """
        check(x=(x, "N T D"))
        attention, (first, second) = self.attention, self.residuals

        def rest(x: Array, heads: Array) -> tuple[Array]:
            x = first.after(x, attention.output.forward(heads))
            return (second.around(x, self.feed_forward.forward),)

        q, k, v = in_pieces(lambda x: attention.project(first.before(x)), x)
        heads = attention.step_heads(q, k, v, cache, mask, last=last)
        (out,) = in_pieces(rest, x if last is None else x[:, -last:, :], heads)
        return out


class TransformerEncoder(Stack):
    """Encoder layers one after the other.

    Parameters
    ----------
    stack : sequence of TransformerEncoderLayer
    norm : LayerNorm or RMSNorm, optional
        After the last layer; usual where the layers have their norms before.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = TransformerEncoder.create(2, 8, heads=2, hidden_size=16)
    >>> encoder.forward(np.ones((1, 3, 8), dtype=np.float32)).shape
    (1, 3, 8)
    """

    layer = TransformerEncoderLayer

    def forward(self, x: Array, mask: Array | None = None, *, causal: bool = False, bias: Array | None = None) -> Array:
        """x (N, T, D), mask (N, T) with True = attend -> (N, T, D)."""
        for layer in self.stack:
            x = layer.forward(x, mask, causal=causal, bias=bias)
        return self.finish(x)

    def backward(self, dout: Array) -> Array:
        """dout (N, T, D) -> dx (N, T, D)."""
        d = self.finish_backward(dout)
        for layer in reversed(self.stack):
            d = layer.backward(d)
        return d

    def new_cache(self, batch_size: int, capacity: int) -> list[KVCache]:
        """Empty caches for `step`, one for each layer."""
        return [layer.new_cache(batch_size, capacity) for layer in self.stack]

    def step(self, x: Array, caches: Sequence[KVCache], mask: Array | None = None) -> Array:
        """Go on by one step or more, as `causal` gives it: x (N, T, D), mask (N, all steps so far) -> (N, T, D)."""
        for layer, cache in zip(self.stack, caches, strict=True):
            x = layer.step(x, cache, mask)
        return self.finish(x)
