"""The CUDA C++ of ``kernels/``: found by the name of a kernel, compiled once for each dtype and device, launched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "kernels"

FILES = {
    "softmax.cu": ("softmax_rows",),
    "optimizer.cu": ("sums_of_squares", "clip", "adam_step"),
    "lstm.cu": ("lstm_cell", "lstm_cell_backward", "lstm_all_steps"),
    "loss.cu": ("cross_entropy_rows", "cross_entropy_mean", "cross_entropy_backward"),
    "rows.cu": ("sum_rows", "scatter_add"),
    "random.cu": ("uniform",),
    "attention_small.cu": ("attention_small", "attention_small_backward"),
    "attention_tiled.cu": ("attention_tiled",),
    "attention_tiled_backward.cu": ("attention_tiled_backward",),
}
"""The files and the kernels in them."""

REAL = {"f": "float", "d": "double"}

SHARED_MEMORY_OPT_IN = 97
"""CUDA's number for this attribute of a device."""


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

    def launch(
        self, name: str, grid: tuple[Any, int], arguments: tuple[Any, ...], shared: int = 0, macros: str = ""
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
        """
        dtype, device = arguments[0].dtype, self._xp.cuda.runtime.getDevice()
        key = (name, dtype.char, macros, device)
        if key not in self._compiled:
            code = f"#define REAL {REAL[dtype.char]}\n{macros}{source(self._file_of[name])}"
            self._compiled[key] = self._xp.RawModule(code=code).get_function(name)
            self._compiled[key].max_dynamic_shared_size_bytes = self.shared_limit()
        blocks, threads = grid
        blocks = blocks if isinstance(blocks, tuple) else (blocks,)
        self._compiled[key](blocks, (threads,), arguments, shared_mem=shared)

    def shared_limit(self) -> int:
        """Bytes of shared memory that a block of the current device may ask for."""
        runtime = self._xp.cuda.runtime
        device = runtime.getDevice()
        if device not in self._shared_limits:
            self._shared_limits[device] = int(runtime.deviceGetAttribute(SHARED_MEMORY_OPT_IN, device))
        return self._shared_limits[device]
