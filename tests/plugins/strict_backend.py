"""array-api-strict as a backend: the array API standard and nothing beside it."""

from typing import Any

import array_api_strict
import numpy as np

from attnbackends import Backend, quiet


class StrictBackend(Backend):
    name = "array_api_strict"
    xp = array_api_strict
    softmax = quiet(Backend.softmax)  # its numbers are NumPy's

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.from_dlpack(array).copy()
