"""What started this process, and how many others with it: read from the environment, before MPI is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI and others that start by Hydra
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)
"""Variables with the number of processes and the number of this one, by launcher."""


class Launch(NamedTuple):
    """Processes that were started together, and which of them this one is."""

    size: int
    rank: int


def launched(environ: Mapping[str, str]) -> Launch | None:
    """What a launcher says, where it started more than one process."""
    for size, rank in LAUNCHERS:
        number = environ.get(size, "")
        if number.isdecimal() and int(number) > 1:
            own = environ.get(rank, "")
            return Launch(int(number), int(own) if own.isdecimal() else 0)
    return None


def cpus() -> frozenset[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
