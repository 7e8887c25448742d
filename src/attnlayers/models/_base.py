"""Networks made of layers."""

from collections.abc import Mapping

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
        check_state(state, {name: tuple(param.shape) for name, param in own.items()}, "weights of another model")
        for name, param in own.items():
            param[...] = self.backend.asarray(state[name], dtype=param.dtype)


def check_state(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], else_: str) -> None:
    """Refuse saved arrays that have not exactly these names and shapes.

    Parameters
    ----------
    state : mapping of str to NumPy array
    shapes : mapping of str to tuple of int
    else_ : str
        What they are if the names differ, for the message.
    """
    missing, unknown = shapes.keys() - state.keys(), state.keys() - shapes.keys()
    if missing or unknown:
        both = (("missing are", missing), ("unknown are", unknown))
        parts = [f"{what} {', '.join(sorted(names))}" for what, names in both if names]
        raise ValueError(f"these are the {else_}: {'; '.join(parts)}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {state[name].shape}")
