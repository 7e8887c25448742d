"""What encoder and decoder of the Transformer share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnbackends import Array

from ._base import Layer
from ._composite import Composite, Initial
from .dropout import Dropout
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

    def __init__(
        self, layers: Mapping[str, Layer], norms: Sequence[Norm], *, pre_norm: bool, dropout: float, seed: int
    ) -> None:
        self.pre_norm = pre_norm
        self.residuals: list[Residual] = []
        parts: dict[str, Layer] = {}
        for i, ((name, layer), norm) in enumerate(zip(layers.items(), norms, strict=True)):
            drop = Dropout(dropout, seed + i) if dropout else None
            self.residuals.append(Residual(layer, norm, pre_norm, drop))
            parts |= {name: layer, f"norm{i + 1}": norm} | ({} if drop is None else {f"dropout{i + 1}": drop})
        super().__init__(**parts)


class Stack(Composite):
    """Layers one after the other, and a last norm; the norm may be left out."""

    def __init__(self, stack: Sequence[Any], norm: Norm | None = None) -> None:
        if not stack:
            raise ValueError("`stack` must hold one layer or more, got none")
        self.stack, self.norm = list(stack), norm
        super().__init__(**{str(i): layer for i, layer in enumerate(stack)}, **({} if norm is None else {"norm": norm}))

    def finish(self, x: Array) -> Array:
        """The last norm."""
        self._saved = True
        return x if self.norm is None else self.norm.forward(x)

    def finish_backward(self, dout: Array) -> Array:
        """Its gradient."""
        self.saved()
        return dout if self.norm is None else self.norm.backward(dout)


def last_norm(d_model: int, draw: Initial, options: dict[str, Any]) -> Norm | None:
    """The norm that goes with layers of these options: one where they have theirs before."""
    norm: type[Norm] = options.get("norm", LayerNorm)
    return norm.create(d_model, initial=draw) if options.get("pre_norm", True) else None
