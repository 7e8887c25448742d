"""What started this process, and how many others with it: read from the environment, before MPI is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),  # MPICH, Intel MPI and others that start by Hydra
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),  # srun
)
"""Variables with the number of processes, of this one, and of this one among those on its host, by launcher."""


class Launch(NamedTuple):
    """Processes that were started together, and which of them this one is, of all and on its host."""

    size: int
    rank: int
    local_rank: int


def launched(environ: Mapping[str, str]) -> Launch | None:
    """What a launcher says, where it started more than one process."""
    for names in LAUNCHERS:
        size, rank, local_rank = (int(text) if (text := environ.get(name, "")).isdecimal() else None for name in names)
        if size is not None and size > 1:
            rank = rank or 0
            return Launch(size, rank, rank if local_rank is None else local_rank)
    return None


def cpus() -> frozenset[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
