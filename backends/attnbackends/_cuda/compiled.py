"""The CUDA C++ of ``kernels/``: found by the name of a kernel, compiled once for each dtype and device, launched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "kernels"

FILES = {
    "steps.cu": ("softmax_rows", "adam_step"),
    "lstm.cu": ("lstm_steps", "lstm_steps_backward", "lstm_cell", "lstm_cell_backward"),
    "random.cu": ("uniform",),
    "attention_small.cu": ("attention_small", "attention_small_backward"),
    "attention_tiled.cu": ("attention_tiled",),
    "attention_tiled_backward.cu": ("attention_tiled_backward",),
}
"""The files and the kernels in them."""

REAL = {"f": "float", "d": "double"}

SHARED_MEMORY_OPT_IN = 97
"""CUDA's number for this attribute of a device."""

LIMITS = 16, 75, 76, 95
"""CUDA's numbers for multiprocessors, the two parts of the compute capability, and cooperative launches."""


def source(file: str) -> str:
    """The text of a file, with what it includes in place: NVRTC knows no folder of ours."""
    parts = re.split(r'#include "(.+)"\n', (FOLDER / file).read_text(encoding="utf-8"))
    return "".join(source(part) if i % 2 else part for i, part in enumerate(parts))


class Kernels:
    """The kernels on the devices of one process.

    Parameters
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._file_of = {name: file for file, names in FILES.items() for name in names}
        self._compiled: dict[tuple[str, str, str, int], Any] = {}
        self._shared_limits: dict[int, int] = {}
        self._limits: dict[int, tuple[int, int, bool]] = {}

    def launch(
        self,
        name: str,
        grid: tuple[Any, int],
        arguments: tuple[Any, ...],
        shared: int = 0,
        macros: str = "",
        together: bool = False,
    ) -> None:
        """Launch a kernel.

        Parameters
        ----------
        name : str
        grid : (int or tuple of int, int)
            Blocks, and threads of each.
        arguments : tuple
            Arrays and scalars of NumPy; the first one is an array whose dtype the kernel is compiled for.
        shared : int
            Bytes of shared memory for a block.
        macros : str
            Lines in front of the source.
        together : bool
            All blocks at once, as they wait for each other: CUDA refuses more of them than the device holds.
        """
        blocks, threads = grid
        blocks = blocks if isinstance(blocks, tuple) else (blocks,)
        compiled = self._compile(name, arguments[0].dtype.char, macros)
        if together:
            compiled.kernel(blocks, (threads,), arguments, shared, None, True)
        else:
            compiled(blocks, (threads,), arguments, shared_mem=shared)

    def _compile(self, name: str, char: str, macros: str) -> Any:
        key = (name, char, macros, self._xp.cuda.runtime.getDevice())
        if key not in self._compiled:
            code = f"#define REAL {REAL[char]}\n{macros}{source(self._file_of[name])}"
            compiled = self._xp.RawModule(code=code).get_function(name)
            compiled.max_dynamic_shared_size_bytes = self.shared_limit()
            self._compiled[key] = compiled
        return self._compiled[key]

    def shared_limit(self) -> int:
        """Bytes of shared memory that a block of the current device may ask for."""
        runtime = self._xp.cuda.runtime
        device = runtime.getDevice()
        if device not in self._shared_limits:
            self._shared_limits[device] = int(runtime.deviceGetAttribute(SHARED_MEMORY_OPT_IN, device))
        return self._shared_limits[device]

    def blocks_at_once(self, name: str, char: str, threads: int, shared: int, macros: str = "") -> int:
        """Blocks of a kernel that one multiprocessor of the current device holds at once."""
        function = self._compile(name, char, macros).kernel.ptr
        return int(self._xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(function, threads, shared))

    def device_limits(self) -> tuple[int, int, bool]:
        """Multiprocessors of the current device, its compute capability as 90 for 9.0, and whether blocks may be
        launched together."""
        runtime = self._xp.cuda.runtime
        device = runtime.getDevice()
        if device not in self._limits:
            count, major, minor, together = (int(runtime.deviceGetAttribute(i, device)) for i in LIMITS)
            self._limits[device] = count, 10 * major + minor, bool(together)
        return self._limits[device]
