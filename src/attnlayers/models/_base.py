"""Networks made of layers."""

from collections.abc import Mapping

import numpy as np

from attnbackends import Backend

from .._saved_state import check_state
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
        check_state(state, {name: tuple(param.shape) for name, param in own.items()}, "weights of another model")
        for name, param in own.items():
            param[...] = self.backend.asarray(state[name], dtype=param.dtype)
