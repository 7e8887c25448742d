"""How ranks speak with each other: objects and NumPy arrays, on the host."""

from __future__ import annotations

import os
import stat
import sys
from time import monotonic, sleep
from typing import Any, Protocol

import numpy as np

SPIN_SECONDS = 0.002
"""How long to look for the others without a pause. Longer costs a core that they may need, shorter up to
`PAUSE_SECONDS` of each step."""

PAUSE_SECONDS = 0.0002

READ_SECONDS = 1.0
"""How long a rank that ends all waits for the launcher to take its last words."""


class Channel(Protocol):
    """What `Ranks` needs of a communicator."""

    rank: int
    size: int
    host: str
    library: str

    def gather(self, own: Any) -> list[Any]:
        """One object of each rank, on every rank."""

    def broadcast(self, own: Any) -> Any:
        """The object of rank 0."""

    def any(self, own: bool) -> bool:
        """Whether it is true of any rank. A signal that comes while others are waited for is handled."""

    def add(self, array: np.ndarray) -> None:
        """Put the sum over all ranks into the array of each."""

    def abort(self, code: int) -> None:
        """End all ranks, now."""


class Alone:
    """One process."""

    rank, size, host, library = 0, 1, "", "none"

    def gather(self, own: Any) -> list[Any]:
        return [own]

    def broadcast(self, own: Any) -> Any:
        return own

    def any(self, own: bool) -> bool:
        return own

    def add(self, array: np.ndarray) -> None:
        pass

    def abort(self, code: int) -> None:
        raise SystemExit(code)


class MPIChannel:
    """The processes of ``MPI.COMM_WORLD``.

    Parameters
    ----------
    MPI : module
        ``mpi4py.MPI``.
    """

    def __init__(self, MPI: Any) -> None:
        self._MPI, self._world = MPI, MPI.COMM_WORLD
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        self.host = MPI.Get_processor_name()
        self.library = library_of(MPI)

    def gather(self, own: Any) -> list[Any]:
        return list(self._world.allgather(own))

    def broadcast(self, own: Any) -> Any:
        return self._world.bcast(own)

    def any(self, own: bool) -> bool:
        found = np.array([own], np.int8)
        request = self._world.Iallreduce(self._MPI.IN_PLACE, found, self._MPI.MAX)
        begun = monotonic()
        # Not `wait`: within it no signal would be handled, and a core would be busy for as long as it takes.
        while not request.Test():
            if monotonic() - begun > SPIN_SECONDS:
                sleep(PAUSE_SECONDS)
        return bool(found[0])

    def add(self, array: np.ndarray) -> None:
        self._world.Allreduce(self._MPI.IN_PLACE, array, self._MPI.SUM)

    def abort(self, code: int) -> None:
        _wait_until_read(1, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who ended all, and why, has been told: MPI need not do it again
        self._world.Abort(code)


def _wait_until_read(*files: int) -> None:
    """Wait until a launcher has taken what was written to these pipes: what is left in them when it ends is lost."""
    if sys.platform == "win32":
        return
    import fcntl
    import termios

    begun = monotonic()
    for file in files:
        if not stat.S_ISFIFO(os.fstat(file).st_mode):
            continue
        while any(fcntl.ioctl(file, termios.FIONREAD, bytes(4))) and monotonic() - begun < READ_SECONDS:
            sleep(0.001)


def library_of(MPI: Any) -> str:
    """Name and version of the MPI library, as in "MPICH 5.0.2"."""
    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"
