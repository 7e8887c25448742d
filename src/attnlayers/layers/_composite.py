"""Layers made of layers."""

from typing import Any

import numpy as np

import attnbackends
from attnbackends import Array, Backend, quiet

from ..functional._integers import integer
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

    def train(self, flag: bool) -> None:
        """Switch all dropout within on or off."""
        switch_dropout(self, flag)

    def reseed(self, *seed: int) -> None:
        """Start all that is drawn within anew: what is dropped from here on is a function of these numbers."""
        drawing = [layer for layer in self.layers.values() if hasattr(layer, "reseed")]
        seeds = np.random.SeedSequence([integer("seed", number, least=0) for number in seed]).generate_state(
            max(1, len(drawing))
        )
        for layer, own in zip(drawing, seeds.tolist(), strict=False):
            layer.reseed(own)


def switch_dropout(layer: Any, flag: bool) -> None:
    """Set ``train_flg`` wherever a layer, or a layer within it, has one."""
    if hasattr(layer, "train_flg"):
        layer.train_flg = flag
    for inner in getattr(layer, "layers", {}).values():
        switch_dropout(inner, flag)


def forget(layer: Any) -> None:
    """Let go of what a layer, and the layers within it, remember of the last forward."""
    layer._saved = None
    if hasattr(layer, "_attention"):
        layer._attention = None
    for inner in getattr(layer, "layers", {}).values():
        forget(inner)


class Initial:
    """A seeded source of initial weights; they are drawn on the host, so that every device starts alike.

    Parameters
    ----------
    seed : int
    dtype : str
        Of the weights: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, as far as the library has them.
        NumPy's bfloat16 is that of the package ml_dtypes.
    backend : Backend, optional
        Where they live. Default: the one that the environment chose.
    """

    def __init__(self, seed: int = 0, dtype: str = "float32", backend: Backend | None = None) -> None:
        self.rng = np.random.default_rng(integer("seed", seed, least=0))
        self.backend = backend or attnbackends.backend
        self.dtype = self.backend.float_dtype(dtype)

    @classmethod
    def of(cls, initial: "Initial | int | None", seed: int | None = None) -> "Initial":
        """What `create` draws from: a source, or the one of a seed, which may come as either argument."""
        if initial is not None and seed is not None:
            raise ValueError("`seed` and `initial` both say what weights are drawn from: pass one of them")
        if isinstance(initial, Initial):
            return initial
        return cls(0 if seed is None else seed) if initial is None else cls(integer("initial", initial, least=0))

    def seed(self) -> int:
        """For a generator of a layer's own."""
        return int(self.rng.integers(2**31))

    @quiet
    def array(self, values: np.ndarray) -> Array:
        """These values, as a weight."""
        return self.backend.asarray(values, dtype=self.dtype)

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Normal numbers of that standard deviation."""
        return self.array(scale * self.rng.standard_normal(shape))

    def xavier(self, rows: int, columns: int) -> Array:
        """Uniform numbers for a map (D, H), whose variance is 2 / (D + H) (Glorot and Bengio, 2010)."""
        bound = (6 / (rows + columns)) ** 0.5
        return self.array(self.rng.uniform(-bound, bound, (rows, columns)))

    def full(self, value: float, *shape: int) -> Array:
        """One value everywhere."""
        return self.array(np.full(shape, value))


class Unset(Initial):
    """Makes weights that hold anything, for those that are read from a file next: none is drawn, no page is touched."""

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return self.backend.empty(shape, like=self._like)

    def xavier(self, rows: int, columns: int) -> Array:
        return self.backend.empty((rows, columns), like=self._like)

    def full(self, value: float, *shape: int) -> Array:
        return self.backend.empty(shape, like=self._like)

    @property
    def _like(self) -> Array:
        return self.backend.asarray(np.zeros(()), dtype=self.dtype)
