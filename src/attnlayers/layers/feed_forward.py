"""The feed-forward network of a Transformer layer."""

from typing import Any, Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.integers import sizes
from ._composite import Composite
from .affine import Affine
from .initializer import Drawing, Initializer

_ACTIVATIONS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "relu": (F.relu, F.relu_backward, {}),
    "gelu": (F.gelu, F.gelu_backward, {}),
    "gelu_tanh": (F.gelu, F.gelu_backward, {"approximate": True}),
    "swiglu": (F.swiglu, F.swiglu_backward, {}),
}


class FeedForward(Composite):
    """Two affine maps with an activation between them, at every step.

    Parameters
    ----------
    W1 : array (D, F)
    W2 : array (F, D_out)
    b1 : array (F,), optional
    b2 : array (D_out,), optional
    activation : {"gelu", "gelu_tanh", "relu", "swiglu"}
    W_gate : array (D, F), optional
        For ``"swiglu"``, and for nothing else: the map to the gates.
    b_gate : array (F,), optional

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.3; Shazeer, "GLU Variants Improve Transformer", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> FeedForward.create(4, 16, activation="swiglu").forward(np.ones((2, 3, 4), dtype=np.float32)).shape
    (2, 3, 4)
    """

    def __init__(
        self,
        W1: Array,
        W2: Array,
        b1: Array | None = None,
        b2: Array | None = None,
        *,
        activation: str = "gelu",
        W_gate: Array | None = None,
        b_gate: Array | None = None,
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if (W_gate is not None) != (activation == "swiglu"):
            raise ValueError(f"`W_gate` belongs to swiglu, which needs it, got {activation!r}: pass both or neither")
        self.activation = activation
        self.up, self.down = Affine(W1, b1), Affine(W2, b2)
        self.gate = None if W_gate is None else Affine(W_gate, b_gate)
        gate = {} if self.gate is None else {"gate": self.gate}
        super().__init__(**gate, up=self.up, down=self.down)

    @classmethod
    def create(
        cls,
        embedding_size: int,
        hidden_size: int,
        *,
        activation: str = "gelu",
        use_bias: bool = True,
        **drawing: Unpack[Drawing],
    ) -> Self:
        """A layer with initial weights, D to F to D, and biases of 0; `drawing` is that of `Initializer`."""
        draw, (D, F) = Initializer.of(**drawing), sizes(embedding_size=embedding_size, hidden_size=hidden_size)
        gates: dict[str, Array] = {}
        if activation == "swiglu":
            gates["W_gate"] = draw.matrix(D, F)
            if use_bias:
                gates["b_gate"] = draw.full(0, F)
        W1, W2 = draw.matrix(D, F), draw.matrix(F, D)
        b1, b2 = (draw.full(0, F), draw.full(0, D)) if use_bias else (None, None)
        return cls(W1, W2, b1, b2, activation=activation, **gates)

    def forward(self, x: Array) -> Array:
        """x (..., D) -> (..., D_out)."""
        function, _, options = _ACTIVATIONS[self.activation]
        gates = () if self.gate is None else (self.gate.forward(x),)
        hidden, self._saved = function(*gates, self.up.forward(x), **options)
        return self.down.forward(hidden)

    def backward(self, dout: Array) -> Array:
        """dout (..., D_out) -> dx (..., D)."""
        saved = self.saved()
        gradient = _ACTIVATIONS[self.activation][1](saved, self.down.backward(dout))
        if self.gate is None:
            return self.up.backward(gradient)
        dgate, dup = gradient
        dx = self.up.backward(dup)
        dx += self.gate.backward(dgate)
        return dx
