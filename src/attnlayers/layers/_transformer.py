"""What encoder and decoder of the Transformer share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, Unpack

from attnbackends import Array, Backend, backend_of, float_bits

from ..functional.integers import integer, sizes
from ._base import Layer
from ._composite import Composite
from .dropout import Dropout
from .feed_forward import FeedForward
from .initializer import Drawing, Initializer
from .multi_head import MultiHeadAttention
from .normalization import LayerNorm, RMSNorm

Norm = LayerNorm | RMSNorm

STEPS_OF_PIECE = 256
"""Steps of a piece at least. BLAS arranges a matrix of weights anew for each piece: products of 128 steps run at 0.85
of the rate of 256, those at 0.9 of the rate of 512 (benchmarks/NOTES.md, "Language models")."""


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
        """The residual connection around `function` instead of the layer's forward."""
        return self.after(x, function(self.before(x)))

    def before(self, x: Array) -> Array:
        """What the layer is given."""
        return self.norm.forward(x) if self.pre_norm else x

    def after(self, x: Array, h: Array) -> Array:
        """What goes on, where the layer made h."""
        return x + h if self.pre_norm else self.norm.forward(x + h)


def in_pieces(function: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """`function` of arrays (N, T, ·), of which it takes each step by itself, in pieces that threads share.

    A thread makes several products of a piece one after the other, and is waited for once. What layers remember is that
    of some piece: no backward may follow.
    """
    backend = backend_of(*arrays)
    xp, (N, T, _) = backend.xp, arrays[0].shape
    pieces = backend.chunks(N * T, arrays[0].shape[-1] * float_bits(xp, arrays[0].dtype) // 8, STEPS_OF_PIECE)
    if len(pieces) == 1:
        return function(*arrays)
    rows = [xp.reshape(array, (1, N * T, array.shape[-1])) for array in arrays]
    found: dict[int, tuple[Array, ...]] = {}

    def piece(i: int) -> None:
        found[i] = function(*(array[:, pieces[i], :] for array in rows))

    backend.map(piece, range(len(pieces)))
    parts = [xp.concat([found[i][j] for i in range(len(pieces))], axis=1) for j in range(len(found[0]))]
    return tuple(xp.reshape(part, (N, T, part.shape[-1])) for part in parts)


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
        embedding_size: int,
        heads: int,
        hidden_size: int,
        *,
        activation: str = "gelu",
        norm: type[Norm] = LayerNorm,
        pre_norm: bool = True,
        dropout: float = 0.0,
        use_bias: bool = True,
        key_heads: int | None = None,
        rotary: str | None = None,
        rotary_base: float = 10000.0,
        window: tuple[int | None, int | None] | None = None,
        softcap: float | None = None,
        **drawing: Unpack[Drawing],
    ) -> Self:
        """A layer with initial weights, and biases of 0.

        Parameters
        ----------
        embedding_size, heads, hidden_size : int
            Size of inputs and outputs, attention heads, and size within the feed-forward network.
        activation : str
            As in `FeedForward`.
        norm : LayerNorm or RMSNorm
            The class.
        pre_norm, dropout
            As in the class; the same share of attention weights is dropped.
        use_bias : bool
            Whether attention and feed-forward network have biases.
        key_heads, rotary, rotary_base, window, softcap
            As in `MultiHeadAttention`, for self-attention alone.
        **drawing
            As in `Initializer`; the seed is also that of what is dropped.
        """
        draw = Initializer.of(**drawing)
        own: dict[str, Any] = {"key_heads": key_heads, "rotary": rotary, "rotary_base": rotary_base}
        own |= {"window": window, "softcap": softcap}
        kinds = [own] + [{}] * (cls.attentions - 1)
        attentions = [
            MultiHeadAttention.create(
                embedding_size, heads, use_bias=use_bias, dropout=dropout, initializer=draw, **options
            )
            for options in kinds
        ]
        feed_forward = FeedForward.create(
            embedding_size, hidden_size, activation=activation, use_bias=use_bias, initializer=draw
        )
        norms = [norm.create(embedding_size, initializer=draw) for _ in range(cls.attentions + 1)]
        make: Any = cls
        layer: Self = make(*attentions, feed_forward, *norms, pre_norm=pre_norm, dropout=dropout, seed=draw.draw_seed())
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
        embedding_size: int,
        heads: int,
        hidden_size: int,
        *,
        seed: int | None = None,
        dtype: str | None = None,
        backend: Backend | None = None,
        initializer: Initializer | None = None,
        **options: Any,
    ) -> Self:
        """`depth` layers with initial weights, and a last norm with `pre_norm`; `options` are those of the layers."""
        draw = Initializer.of(seed=seed, dtype=dtype, backend=backend, initializer=initializer)
        (depth,) = sizes(depth=depth)
        stack = [
            cls.layer.create(embedding_size, heads, hidden_size, initializer=draw, **options) for _ in range(depth)
        ]
        norm: type[Norm] = options.get("norm", LayerNorm)
        return cls(stack, norm.create(embedding_size, initializer=draw) if options.get("pre_norm", True) else None)

    def finish(self, x: Array) -> Array:
        """The last norm."""
        self._saved = True
        return x if self.norm is None else self.norm.forward(x)

    def finish_backward(self, dout: Array) -> Array:
        """Gradient of `finish`: dout (N, T, D) -> dx (N, T, D)."""
        self.saved()
        return dout if self.norm is None else self.norm.backward(dout)
