"""A pure pair of functions, dressed as a layer for `gradcheck`."""

from collections.abc import Callable
from typing import Any


class Pair:
    """``forward`` and ``backward`` of a pair ``x(...) -> (out, saved)`` and ``x_backward(saved, dout)``."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], **options: Any) -> None:
        self.params: list[Any] = []
        self.grads: list[Any] = []
        self._forward, self._backward, self._options = forward, backward, options

    def forward(self, *inputs: Any) -> Any:
        out, self._saved = self._forward(*inputs, **self._options)
        return out

    def backward(self, dout: Any) -> Any:
        return self._backward(self._saved, dout)
