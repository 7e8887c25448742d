"""Array backends: NumPy or CuPy, chosen once by the environment, plug-ins beside them.

>>> from attnbackends import xp, backend
>>> float(xp.sum(xp.arange(4)))
6.0
"""

from ._array import Array
from ._attention import AttentionCall, OwnAttention
from ._base import Backend, DType
from ._cpu.memory import keep_freed_memory
from ._cross_entropy import CrossEntropyCall, OwnCrossEntropy
from ._dtypes import float_bits, float_dtype
from ._errors import BackendError
from ._ids import check_ids
from ._lstm import LSTMCall, OwnLSTM
from ._machine import Machine
from ._packed_keys import PackedKeys
from ._quiet import quiet
from ._random import Uniform, current_share, share_of_batch
from ._registry import Availability, available_backends, backend_of, chosen_backend, get_backend

__all__ = [
    "GPU",
    "REASON",
    "Array",
    "AttentionCall",
    "Availability",
    "Backend",
    "BackendError",
    "CrossEntropyCall",
    "DType",
    "LSTMCall",
    "Machine",
    "OwnAttention",
    "OwnCrossEntropy",
    "OwnLSTM",
    "PackedKeys",
    "Uniform",
    "available_backends",
    "backend",
    "backend_of",
    "check_ids",
    "current_share",
    "float_bits",
    "float_dtype",
    "get_backend",
    "keep_freed_memory",
    "quiet",
    "share_of_batch",
    "xp",
]

backend, REASON = chosen_backend()
"""Where new arrays live, and the setting that decided it."""

xp = backend.xp
"""The array namespace of `backend`."""

GPU: bool = not backend.on_host
"""Whether `backend` computes on a device of its own."""
