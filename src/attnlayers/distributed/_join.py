"""Joining the other ranks, and ending with them."""

from __future__ import annotations

import os
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Any

from ._channel import MPIChannel, library_of
from ._errors import RanksError, Told
from ._launch import Launch, cpus, launched

if TYPE_CHECKING:
    from ._ranks import Ranks

TURN_SECONDS = 1.0, 0.05
"""What a rank that fails waits for rank 0, which tells it and ends all where all fail alike, and for each rank between
them. A loaded machine needs a good part of a second to end the others."""

Report = Callable[[BaseException, str], int]

INSTALL = "pip install 'attnlayers[mpi]'"


@contextmanager
def join(report: Report | None = None) -> Iterator[Ranks]:
    """Join the processes that ``mpiexec`` started together with this one; without it, be alone.

    Each rank gets threads for its share of the CPUs, where neither ``ATTN_THREADS`` is set nor arrays are in use yet,
    and on CUDA a device of its own. Ranks with other versions or another kind of machine than rank 0 are refused. An
    error that leaves the block on one rank ends all of them.

    Parameters
    ----------
    report : callable, optional
        Called on the rank that ends all with the error that left the block, and with a few words that say which rank it
        is, empty on rank 0; returns the exit status. Default: prints the traceback.

    Yields
    ------
    Ranks

    Raises
    ------
    RanksError
        If several processes were started and cannot join, or must not train together.

    Examples
    --------
    >>> with join() as ranks:
    ...     ranks.rank, ranks.size, ranks.share(10)
    (0, 1, slice(0, 10, None))
    """
    started = launched(os.environ)
    if started is None:
        from ._ranks import Ranks

        yield Ranks()
        return
    report = report or _traceback
    try:
        MPI = _load(started)
    except RanksError as error:
        # What a host lacks is told once for each host: the ranks on it cannot speak with each other.
        raise SystemExit(1 if started.local_rank else report(error, "")) from None
    channel = MPIChannel(MPI)
    try:
        yield _together(channel, lambda error: _end(channel, error, report))
    except BaseException as error:
        _end(channel, error, report)


def describe() -> str:
    """The MPI that `join` would use, without starting it."""
    try:
        import mpi4py
    except ImportError as error:
        return f"not used, mpi4py cannot be imported ({error}): {INSTALL}"
    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"not used, mpi4py {mpi4py.__version__} finds no MPI library ({' '.join(str(error).split())}): {INSTALL}"
    return f"{library_of(MPI)}, by mpi4py {mpi4py.__version__}"


def _load(started: Launch) -> Any:
    """The module `mpi4py.MPI`, which starts MPI."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a launcher of another MPI, which is told below
            from mpi4py import MPI
    except ImportError as error:
        raise RanksError(
            f"{started.size} processes were started together, and each would train by itself, since mpi4py cannot be "
            f"imported ({error}): {INSTALL}"
        ) from error
    except RuntimeError as error:  # mpi4py is there, and no MPI library
        raise RanksError(f"mpi4py finds no MPI library ({' '.join(str(error).split())}): {INSTALL}") from error
    size = MPI.COMM_WORLD.Get_size()
    if size != started.size:
        raise RanksError(
            f"{started.size} processes were started together, and mpi4py's MPI, {library_of(MPI)}, knows of {size}: "
            f"start them with the mpiexec of that MPI, which for the extra mpi stands beside {sys.executable}"
        )
    return MPI


def _together(channel: MPIChannel, end: Callable[[BaseException], object]) -> Ranks:
    """The ranks, with threads and devices of their own, if they are of one kind."""
    hosts = channel.gather((channel.host, cpus()))
    here = [own for host, own in hosts if host == channel.host]
    if "attnbackends" not in sys.modules and not os.environ.get("ATTN_THREADS", "").strip():
        shared = frozenset[int]().union(*here)
        os.environ["ATTN_THREADS"] = str(max(1, len(shared) // len(here)))
    import attnbackends

    from .. import __version__
    from ._ranks import Ranks

    ranks = Ranks(channel, end)
    backend = attnbackends.backend
    python = ".".join(platform.python_version_tuple()[:2])
    ranks.agree({"attnlayers": __version__, "Python": python, "MPI": channel.library}, "install the same on every host")
    ranks.agree({"the backend": backend.name}, "set ATTN_GPU and ATTN_BACKEND alike for all ranks")
    ranks.use_devices(backend)
    ranks.agree(
        backend.machine.rounding(),
        "ranks stay equal to the bit only on machines of one kind, with the same libraries "
        "(OPENBLAS_CORETYPE makes CPUs compute alike)",
    )
    return ranks


def _end(channel: MPIChannel, error: BaseException, report: Report) -> None:
    """End this rank, and all of them where the others do not end by themselves."""
    code = getattr(error, "exit_code", getattr(error, "code", 1))
    if isinstance(error, Told) or code in (0, None):
        raise error
    _in_turn(channel.rank)
    code = report(error, f"rank {channel.rank} on {channel.host}: " if channel.rank else "")
    sys.stdout.flush()
    sys.stderr.flush()
    channel.abort(code)
    raise SystemExit(code)


def _in_turn(rank: int) -> None:
    first, each = TURN_SECONDS
    sleep(first + min(rank, 40) * each if rank else 0)


def _traceback(error: BaseException, where: str) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, (RanksError, SystemExit)):
        print(f"{where}{error}", file=sys.stderr)
    else:
        print(where, end="", file=sys.stderr)
        traceback.print_exception(error)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
