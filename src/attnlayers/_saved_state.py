"""Arrays that were saved by name: what models and optimizers ask of them before they overwrite anything."""

from collections.abc import Mapping

import numpy as np


def check_state(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], described: str) -> None:
    """Refuse saved arrays that have not exactly these names and shapes.

    Parameters
    ----------
    state : mapping of str to NumPy array
    shapes : mapping of str to tuple of int
    described : str
        What they are if the names differ, for the message: "weights of another model".

    Raises
    ------
    ValueError
        If a name is missing or unknown, or a shape is another.
    """
    missing, unknown = shapes.keys() - state.keys(), state.keys() - shapes.keys()
    if missing or unknown:
        both = (("missing are", missing), ("unknown are", unknown))
        parts = [f"{what} {', '.join(sorted(names))}" for what, names in both if names]
        raise ValueError(f"these are the {described}: {'; '.join(parts)}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {state[name].shape}")
