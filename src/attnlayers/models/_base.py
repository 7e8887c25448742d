"""Networks made of layers."""

from collections.abc import Iterator, Mapping

import numpy as np

from attnbackends import Backend

from ..layers import Layer
from ..layers._composite import Composite


class Network(Composite):
    """Layers under names; their parameters and gradients in two parallel lists.

    Parameters
    ----------
    backend : Backend
        Where the parameters live.
    **layers : Layer, networks among them
        In the order of `params`.
    """

    def __init__(self, backend: Backend, **layers: Layer) -> None:
        super().__init__(**layers)
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """Where the parameters live."""
        return self._backend

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the parameters by name, on the host."""
        return {
            name: np.array(self.backend.to_numpy(param)) for name, param in zip(self.names, self.params, strict=True)
        }

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
