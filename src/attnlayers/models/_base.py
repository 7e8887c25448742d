"""Networks made of layers."""

from collections.abc import Iterator, Mapping

import numpy as np

from attnbackends import Array, Backend

from ..layers import Layer


class Network:
    """Layers under names; their parameters and gradients in two parallel lists.

    Parameters
    ----------
    backend : Backend
        Where the parameters live.
    **layers : Layer or Network
        In the order of `params`.
    """

    def __init__(self, backend: Backend, **layers: "Layer | Network") -> None:
        self.backend = backend
        self.layers = layers
        self.params: list[Array] = [param for layer in layers.values() for param in layer.params]
        self.grads: list[Array] = [grad for layer in layers.values() for grad in layer.grads]

    @property
    def names(self) -> tuple[str, ...]:
        """What each parameter is called: ``"encoder.lstm.Wx"``."""
        return tuple(f"{name}.{part}" for name, layer in self.layers.items() for part in layer.names)

    def state(self) -> dict[str, np.ndarray]:
        """The parameters by name, on the host."""
        return {name: self.backend.to_numpy(param) for name, param in zip(self.names, self.params, strict=True)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Overwrite all parameters.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape is another; nothing is overwritten then.
        """
        own = dict(zip(self.names, self.params, strict=True))
        missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
        if missing or unknown:
            parts = [f"{what} {', '.join(sorted(names))}" for what, names in _named(missing, unknown) if names]
            raise ValueError(f"these are the weights of another model: {'; '.join(parts)}")
        for name, param in own.items():
            if tuple(param.shape) != state[name].shape:
                raise ValueError(f"{name} must have shape {tuple(param.shape)}, got {state[name].shape}")
        for name, param in own.items():
            param[...] = self.backend.asarray(state[name], dtype=param.dtype)


def _named(missing: set[str], unknown: set[str]) -> Iterator[tuple[str, set[str]]]:
    yield "missing are", missing
    yield "unknown are", unknown
