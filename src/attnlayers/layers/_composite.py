"""Layers made of layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from attnbackends import Array

from ..functional.integers import integer
from ._base import Layer


class Composite(Layer):
    """Layers under names; their parameters and gradients in two parallel lists.

    Parameters
    ----------
    **layers : Layer
        In the order of `params`; a parameter W of a layer ``query`` is called ``query.W``.
    """

    def __init__(self, **layers: Layer) -> None:
        super().__init__()
        self.layers = layers
        self.params = [param for layer in layers.values() for param in layer.params]
        self.names: tuple[str, ...] = tuple(f"{name}.{part}" for name, layer in layers.items() for part in layer.names)

    def _new_grads(self) -> list[Array]:
        return [grad for layer in self.layers.values() for grad in layer.grads]

    def train(self, training: bool = True) -> None:
        """Switch all dropout within on or off."""
        set_training(self, training)

    def reseed(self, *seed: int) -> None:
        """Start all that is drawn within anew: what is dropped from here on is a function of these numbers."""
        drawing = [layer for layer in self.layers.values() if hasattr(layer, "reseed")]
        seeds = np.random.SeedSequence([integer("seed", number, least=0) for number in seed]).generate_state(
            max(1, len(drawing))
        )
        for layer, own in zip(drawing, seeds.tolist(), strict=False):
            layer.reseed(own)


def set_training(layer: Any, training: bool) -> None:
    """Set ``training`` wherever a layer, or a layer within it, has it."""
    if hasattr(layer, "training"):
        layer.training = training
    for inner in getattr(layer, "layers", {}).values():
        set_training(inner, training)


@contextmanager
def not_training(layer: Any) -> Iterator[None]:
    """Without dropout and label smoothing: its ``training`` is off within, and what it was before behind."""
    before, layer.training = layer.training, False
    try:
        yield
    finally:
        layer.training = before


def forget(layer: Any) -> None:
    """Let go of what a layer, and the layers within it, remember of the last forward."""
    layer._saved = None
    if hasattr(layer, "_attention"):
        layer._attention = None
    for inner in getattr(layer, "layers", {}).values():
        forget(inner)
