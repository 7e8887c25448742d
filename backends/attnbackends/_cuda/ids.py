"""Ids that a device checks by itself: nobody waits for the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._ids import Check, outside
from .compiled import source

Array = Any

BITS = 40
"""Bits of a report that hold the id, as in ``kernels/ids.cuh``; the check that found it stands above them. Ids beyond
them are reported as the largest."""


class DeviceIds:
    """`Backend.ids_within` and `Backend.take_rows` on CUDA devices.

    A wrong id is reported in one word of the host's memory, which every device writes to, and the host reads without
    asking a device. The last report stands.

    Parameters
    ----------
    cupy : module
    """

    def __init__(self, cupy: Any) -> None:
        self._empty = cupy.empty
        self._memory = cupy.cuda.alloc_pinned_memory(8)
        self._report = np.frombuffer(self._memory, np.int64, 1)
        self._report[0] = 0
        self._checks: list[Check] = []
        inputs, call = "int64 id, int64 size, bool skips, int64 ignore, int64 check, uint64 report", "within(id, size, "
        call += "skips, ignore, check, report)"
        self._within = cupy.ElementwiseKernel(
            inputs, "int64 place", f"place = {call}", "ids_within", preamble=source("ids.cuh")
        )
        inputs, row = f"{inputs}, raw T table, int64 width", f"row = table[{call} * width + i % width]"
        self._take = cupy.ElementwiseKernel(inputs, "T row", row, "take_rows", preamble=source("ids.cuh"))

    def within(self, ids: Array, check: Check) -> Array:
        """See `Backend.ids_within`."""
        return self._within(*self._arguments(ids, check))

    def take_rows(self, table: Array, ids: Array, check: Check) -> Array:
        """See `Backend.take_rows`."""
        width = table.shape[1]
        out = self._empty((ids.shape[0], width), dtype=table.dtype)
        return self._take(*self._arguments(ids[:, None], check), table, width, out) if out.size else out

    def _arguments(self, ids: Array, check: Check) -> tuple[Any, ...]:
        size, ignore, number, report = self.numbers(check)
        return ids, size, check.ignore is not None, ignore, number, report

    def numbers(self, check: Check) -> tuple[Any, ...]:
        """What the device is told of a check: size, the id that does not count, number of the check, place of a report.

        An error that was found before is raised here.
        """
        self.raise_found()
        if check not in self._checks:
            self._checks.append(check)
        number = self._checks.index(check) + 1
        return np.int64(check.size), np.int64(check.ignore or 0), np.int64(number), np.uint64(self._memory.ptr)

    def raise_found(self) -> None:
        """Raise what was reported so far."""
        report = int(self._report[0])
        if report:
            self._report[0] = 0
            number = (report + 2 ** (BITS - 1)) >> BITS
            raise outside(self._checks[number - 1], report - (number << BITS))
