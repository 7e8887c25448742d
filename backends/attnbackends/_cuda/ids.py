"""Ids that a device checks by itself: nobody waits for the answer."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .._ids import Check, outside
from .compiled import source

Array = Any

BITS = 40
"""Bits of a report that hold the id, as in ``kernels/ids.cuh``; the check that found it stands above them. Ids beyond
them are reported as the largest."""


class DeviceIds:
    """`Backend.take_rows` on CUDA devices, and the check of ids for kernels that look them up themselves.

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
        inputs = "int64 id, int64 size, int64 ignore, int64 check, uint64 report, raw T table, int64 width"
        row = "const long long place = within(id, size, false, ignore, check, report) * width + i % width; "
        row += "row = size ? table[place] : T()"
        self._take = cupy.ElementwiseKernel(inputs, "T row", row, "take_rows", preamble=source("ids.cuh"))

    def take_rows(self, table: Array, ids: Array, check: Check) -> Array:
        """See `Backend.take_rows`."""
        width = prod(table.shape[1:])
        if width == 0:  # nothing to take, and ids to check
            self.take_rows(self._empty(table.shape[:1], np.int8), ids, check)
        out = self._empty((ids.shape[0], width), dtype=table.dtype)
        if out.size:
            self._take(ids[:, None], *self.numbers(check), table, width, out)
        return out.reshape(ids.shape[0], *table.shape[1:])

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
