"""What a program on the bench has done so far."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Counts:
    """What was asked of the device, also where a setting keeps it from being done."""

    launches: dict[str, int] = field(default_factory=dict)
    """By the kernel's name."""
    products: int = 0
    """Calls of cuBLAS that compute."""
    to_device: int = 0
    to_host: int = 0
    on_device: int = 0
    """Copies within the device, and fills."""
    synchronizations: int = 0

    @property
    def all_launches(self) -> int:
        return sum(self.launches.values())

    def __sub__(self, before: Counts) -> Counts:
        names = {*self.launches, *before.launches}
        launches = {name: self.launches.get(name, 0) - before.launches.get(name, 0) for name in sorted(names)}
        return Counts(
            {name: number for name, number in launches.items() if number},
            self.products - before.products,
            self.to_device - before.to_device,
            self.to_host - before.to_host,
            self.on_device - before.on_device,
            self.synchronizations - before.synchronizations,
        )


@cache
def _library() -> Any:
    folder = os.environ.get("CUDA_ON_CPU_LIBRARIES")
    if folder is None:
        raise RuntimeError("nothing is counted: this process does not run on the bench (cuda_on_cpu.environment)")
    library = ctypes.CDLL(str(Path(folder) / "libcuda.so.1"))
    library.cuda_on_cpu_counts.restype = ctypes.c_char_p
    return library


def counts() -> Counts:
    """What this process has done so far; subtract an earlier one to see what happened between."""
    launches: dict[str, int] = {}
    others: dict[str, int] = {}
    for line in _library().cuda_on_cpu_counts().decode().splitlines():
        number, name = line.split(" ", 1)
        if name.startswith("launches "):
            launches[name.removeprefix("launches ")] = int(number)
        else:
            others[name] = int(number)
    return Counts(launches, **others)
