"""What encoder and decoder of the Transformer share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from attnbackends import Array

from ..functional._integers import integer, sizes
from ._base import Layer
from ._composite import Composite, Initial
from .dropout import Dropout
from .feed_forward import FeedForward
from .multi_head import MultiHeadAttention
from .normalization import LayerNorm, RMSNorm

Norm = LayerNorm | RMSNorm


class Residual:
    """``x + layer(norm(x))`` or, where the norm comes after, ``norm(x + layer(x))``; dropout on the layer's output."""

    def __init__(self, layer: Any, norm: Norm, pre_norm: bool, dropout: Dropout | None) -> None:
        self.layer, self.norm, self.pre_norm, self.dropout = layer, norm, pre_norm, dropout

    def forward(self, x: Array, *further: Any, **options: Any) -> Array:
        def function(h: Array) -> Array:
            h = self.layer.forward(h, *further, **options)
            return h if self.dropout is None else self.dropout.forward(h)

        return self.around(x, function)

    def backward(self, dout: Array) -> tuple[Array, ...]:
        """dx, and the gradients of further inputs."""
        d = dout if self.pre_norm else self.norm.backward(dout)
        gradients = self.layer.backward(d if self.dropout is None else self.dropout.backward(d))
        dh, *others = gradients if isinstance(gradients, tuple) else (gradients,)
        return d + (self.norm.backward(dh) if self.pre_norm else dh), *others

    def around(self, x: Array, function: Callable[[Array], Array]) -> Array:
        """The same around another function than the layer's forward."""
        if self.pre_norm:
            return x + function(self.norm.forward(x))
        return self.norm.forward(x + function(x))


class ResidualLayer(Composite):
    """Layers, each with a norm, dropout and a residual connection.

    Parameters
    ----------
    layers : mapping of str to Layer
    norms : sequence of LayerNorm or RMSNorm
        In the order of the layers.
    pre_norm, dropout, seed
        As in `TransformerEncoderLayer`.
    """

    attentions: int
    """How many of the layers are attention."""

    def __init__(
        self, layers: Mapping[str, Layer], norms: Sequence[Norm], *, pre_norm: bool, dropout: float, seed: int
    ) -> None:
        seed = integer("seed", seed, least=0)
        self.pre_norm = pre_norm
        self.residuals: list[Residual] = []
        parts: dict[str, Layer] = {}
        for i, ((name, layer), norm) in enumerate(zip(layers.items(), norms, strict=True)):
            drop = Dropout(dropout, seed + i) if dropout else None
            self.residuals.append(Residual(layer, norm, pre_norm, drop))
            parts |= {name: layer, f"norm{i + 1}": norm} | ({} if drop is None else {f"dropout{i + 1}": drop})
        super().__init__(**parts)

    @classmethod
    def create(
        cls,
        d_model: int,
        heads: int,
        hidden: int,
        *,
        activation: str = "gelu",
        norm: type[Norm] = LayerNorm,
        pre_norm: bool = True,
        dropout: float = 0.0,
        bias: bool = True,
        initial: Initial | int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Self:
        """A layer with initial weights.

        Parameters
        ----------
        d_model, heads, hidden : int
            Size of inputs and outputs, attention heads, and size within the feed-forward network.
        activation : str
            Of `FeedForward`.
        norm : LayerNorm or RMSNorm
            The class.
        pre_norm, dropout
            As in the class; the same share of attention weights is dropped.
        bias : bool
            Of attention and feed-forward network.
        initial : Initial or int, optional
            A source of weights, or its seed.
        seed : int, optional
            Of the weights and of what is dropped, where there is no `initial`. Default: 0.
        **options
            Those of `MultiHeadAttention`, of self-attention alone.
        """
        draw = Initial.of(initial, seed)
        kinds = [options] + [{}] * (cls.attentions - 1)
        attentions = [
            MultiHeadAttention.create(d_model, heads, bias=bias, dropout=dropout, initial=draw, **own) for own in kinds
        ]
        feed_forward = FeedForward.create(d_model, hidden, activation=activation, bias=bias, initial=draw)
        norms = [norm.create(d_model, initial=draw) for _ in range(cls.attentions + 1)]
        make: Any = cls
        layer: Self = make(*attentions, feed_forward, *norms, pre_norm=pre_norm, dropout=dropout, seed=draw.seed())
        return layer


class Stack(Composite):
    """Layers one after the other, and a last norm; the norm may be left out."""

    layer: type[ResidualLayer]

    def __init__(self, stack: Sequence[Any], norm: Norm | None = None) -> None:
        if not stack:
            raise ValueError("`stack` must hold one layer or more, got none")
        self.stack, self.norm = list(stack), norm
        super().__init__(**{str(i): layer for i, layer in enumerate(stack)}, **({} if norm is None else {"norm": norm}))

    @classmethod
    def create(
        cls,
        depth: int,
        d_model: int,
        heads: int,
        hidden: int,
        *,
        initial: Initial | int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Self:
        """`depth` layers with initial weights, and a last norm with `pre_norm`; `options` are those of the layers."""
        draw, (depth,) = Initial.of(initial, seed), sizes(depth=depth)
        stack = [cls.layer.create(d_model, heads, hidden, initial=draw, **options) for _ in range(depth)]
        norm: type[Norm] = options.get("norm", LayerNorm)
        return cls(stack, norm.create(d_model, initial=draw) if options.get("pre_norm", True) else None)

    def finish(self, x: Array) -> Array:
        """The last norm."""
        self._saved = True
        return x if self.norm is None else self.norm.forward(x)

    def finish_backward(self, dout: Array) -> Array:
        """Its gradient."""
        self.saved()
        return dout if self.norm is None else self.norm.backward(dout)
