"""Array backends: NumPy or CuPy, chosen once by the environment, plug-ins beside them.

>>> from attnbackends import xp, backend
>>> float(xp.sum(xp.arange(4)))
6.0
"""

from ._attention import EMPTY_ROW, AttentionCall, visible_keys
from ._base import Array, Backend, DType
from ._errors import BackendError
from ._memory import keep_freed_memory
from ._quiet import quiet
from ._registry import Availability, available_backends, backend_of, chosen_backend, get_backend

__all__ = [
    "EMPTY_ROW",
    "GPU",
    "REASON",
    "Array",
    "AttentionCall",
    "Availability",
    "Backend",
    "BackendError",
    "DType",
    "available_backends",
    "backend",
    "backend_of",
    "get_backend",
    "keep_freed_memory",
    "quiet",
    "visible_keys",
    "xp",
]

backend, REASON = chosen_backend()
"""Where new arrays live, and the setting that decided it."""

xp = backend.xp
"""The array namespace of `backend`."""

GPU: bool = not backend.reading_is_free
"""Whether `backend` computes on a device of its own."""
