"""Ranks without MPI: threads of this process that speak through shared memory."""

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

import numpy as np

from attnlayers.distributed import Ranks

SECONDS = 60
"""What ranks that hang may take before the test fails."""


class SharedMemory:
    """What the channels of some threads have in common."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = Barrier(size, timeout=SECONDS)
        self.places: list[Any] = [None] * size

    def gather(self, rank: int, own: Any) -> list[Any]:
        self.places[rank] = own
        self.barrier.wait()
        found = list(self.places)
        self.barrier.wait()
        return found


class ThreadChannel:
    """A channel between threads, with the methods of `attnlayers.distributed._channel.Channel`."""

    library = "threads"

    def __init__(self, shared: SharedMemory, rank: int, host: str = "here") -> None:
        self.shared, self.rank, self.size, self.host = shared, rank, shared.size, host

    def gather(self, own: Any) -> list[Any]:
        return self.shared.gather(self.rank, own)

    def broadcast(self, own: Any) -> Any:
        return self.gather(own)[0]

    def any(self, own: bool) -> bool:
        return any(self.gather(own))

    def add(self, array: np.ndarray) -> None:
        array[...] = sum(self.gather(array.copy()))

    def abort(self, code: int) -> None:
        self.shared.barrier.abort()
        raise SystemExit(code)


def run_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns on each of so many ranks, or the exception that it ended with there."""
    shared, found = SharedMemory(size), [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Ranks(ThreadChannel(shared, rank)))
        except (Exception, SystemExit) as error:
            found[rank] = error

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "a rank hangs"
    return found


def results(found: list[Any]) -> list[Any]:
    """The results of `run_ranks`, or its first exception, raised."""
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
