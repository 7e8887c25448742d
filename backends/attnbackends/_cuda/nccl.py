"""NCCL, through CuPy: sums over the devices of several processes."""

import warnings
from importlib import import_module
from typing import Any

from .._device_sums import Array
from .._errors import BackendError

INSTALL = "install nvidia-nccl-cu12 or nvidia-nccl-cu13, after the CUDA version of CuPy"


def nccl_of(xp: Any) -> Any:
    """CuPy's module for NCCL, or in one line why it cannot be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's own words about a library that is not there take eight lines
        nccl = import_module(f"{xp.__name__}.cuda.nccl")  # `import cupy` leaves it out
    if not nccl.available:
        return f"NCCL is not installed: {INSTALL}"
    return nccl


class NcclSums:
    """Sums by NCCL, on the stream that is current.

    Parameters
    ----------
    xp : module
        CuPy.
    nccl : module
        ``cupy.cuda.nccl``.
    """

    def __init__(self, xp: Any, nccl: Any) -> None:
        self.xp, self._nccl = xp, nccl
        self.name = f"NCCL {describe(nccl)}"
        self._group: Any = None

    def new_id(self) -> Any:
        return self._nccl.get_unique_id()

    def join(self, group: Any, size: int, rank: int) -> None:
        try:
            self._group = self._nccl.NcclCommunicator(size, group, rank)
        except self._nccl.NcclError as error:
            raise BackendError(
                f"{self.name} does not join {size} ranks ({error}): set NCCL_DEBUG=WARN, and it says why"
            ) from error

    def add(self, array: Array) -> None:
        nccl = self._nccl
        kind = {"f": nccl.NCCL_FLOAT32, "d": nccl.NCCL_FLOAT64}[array.dtype.char]
        place, stream = array.data.ptr, self.xp.cuda.get_current_stream().ptr
        self._group.allReduce(place, place, array.size, kind, nccl.NCCL_SUM, stream)


def describe(nccl: Any) -> str:
    """The version of NCCL, as in 2.27.7."""
    number = nccl.get_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
