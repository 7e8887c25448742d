"""The CUDA C++ of ``kernels/``: found by the name of a kernel, compiled once for each dtype and device, launched."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "kernels"

FILES = {
    "softmax.cu": ("softmax_rows",),
    "optimizer.cu": ("sums_of_squares", "clip", "adam_step"),
    "lstm.cu": ("lstm_steps", "lstm_steps_backward", "lstm_cell", "lstm_cell_backward"),
    "loss.cu": ("cross_entropy_rows", "cross_entropy_mean", "cross_entropy_backward"),
    "rows.cu": ("sum_rows", "scatter_add"),
    "random.cu": ("uniform",),
    "attention_small.cu": ("attention_small", "attention_small_backward"),
    "attention_decode.cu": ("attention_decode", "attention_decode_join"),
    "attention_weights.cu": ("attention_weights", "attention_weights_backward"),
    "attention_tiled.cu": ("attention_tiled",),
    "attention_tiled_backward.cu": ("attention_tiled_backward",),
}
"""The files and the kernels in them."""

REAL = {"f": "float", "d": "double"}

KINDS: dict[str, tuple[str, type[np.generic]]] = {
    "P": ("Q", np.uintp),
    "i": ("i4x", np.int32),
    "q": ("q", np.int64),
    "f": ("f4x", np.float32),
    "d": ("d", np.float64),
}
"""Kinds of arguments: how `struct` writes one into 8 bytes, and NumPy's type. P is an address, 0 for none; the others
are integers of 32 and 64 bits and real numbers; r stands for the dtype that the kernel is compiled for."""

SHARED_MEMORY_OPT_IN, MULTIPROCESSORS = 97, 16
"""CUDA's numbers for these attributes of a device."""

LIMITS = MULTIPROCESSORS, 75, 76, 95
"""CUDA's numbers for multiprocessors, the two parts of the compute capability, and cooperative launches."""

INVALID_CONTEXT = 201
"""The driver's number for a call in a thread without a current device."""


def source(file: str) -> str:
    """The text of a file, with what it includes in place: NVRTC knows no folder of ours."""
    parts = re.split(r'#include "(.+)"\n', (FOLDER / file).read_text(encoding="utf-8"))
    return "".join(source(part) if i % 2 else part for i, part in enumerate(parts))


class Launch:
    """A kernel that is ready to be launched: a call gives the addresses and numbers that it is launched with.

    CuPy's own launch looks at the type of each argument, which takes longer than all else that a call has to do. Here
    the kinds are known, and one write puts all arguments where the driver reads them.

    Parameters
    ----------
    cuda : module
        CuPy's, whose driver is asked.
    compiled : callable
        The kernel; asked for at the first call, on the device on which all calls are made.
    kinds : str
        A letter of `KINDS` for each argument.
    grid : tuple of six ints
        Blocks and threads.
    shared : int
        Bytes of shared memory for a block.
    together : bool
        All blocks at once.
    """

    def __init__(
        self,
        cuda: Any,
        compiled: Callable[[], Any],
        kinds: str,
        grid: Any,
        shared: int,
        together: bool,
    ) -> None:
        # CuPy's own cooperative launch makes a grid that is too large smaller, and asks for all that a device is.
        self._launch = cuda.driver.launchCooperativeKernel if together else cuda.driver.launchKernel
        self._more = () if together else (0,)
        self._cuda, self._stream, self._compiled = cuda, cuda.get_current_stream, compiled
        self._kinds, self._where, self._function = kinds, (*grid, shared), 0
        self._lock = Lock()  # the driver reads the values without Python's own lock

    def _prepare(self) -> None:
        """Where the arguments are to stand; made at the first call, as many a backward pass is never asked for."""
        self._pack = _writer(self._kinds)
        slots = ctypes.c_uint64 * len(self._kinds)
        self._values = slots()
        first = ctypes.addressof(self._values)
        self._addresses = slots(*range(first, first + 8 * len(self._kinds), 8))
        self._parameters = ctypes.addressof(self._addresses)
        self._function = self._compiled().kernel.ptr

    def __call__(self, *arguments: float) -> None:
        with self._lock:
            if not self._function:
                self._prepare()
            self._pack(self._values, 0, *arguments)
            where = (self._function, *self._where, self._stream().ptr, self._parameters, *self._more)
            try:
                self._launch(*where)
            except self._cuda.driver.CUDADriverError as error:
                if error.status != INVALID_CONTEXT:
                    raise
                runtime = self._cuda.runtime  # the driver knows nothing of a thread that the runtime has not met
                runtime.setDevice(runtime.getDevice())
                self._launch(*where)


@cache
def _writer(kinds: str) -> Callable[..., None]:
    """Writes arguments of some kinds one after the other, into 8 bytes each."""
    return struct.Struct("=" + "".join([KINDS[kind][0] for kind in kinds])).pack_into


class Kernels:
    """The kernels on the devices of one process.

    Parameters
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._file_of = {name: file for file, names in FILES.items() for name in names}
        self._compiled: dict[tuple[str, str, str, int], Any] = {}
        self._attributes: dict[tuple[int, int], int] = {}
        try:
            self._driver, _ = xp.cuda.driver, (xp.cuda.driver.launchKernel, xp.cuda.driver.launchCooperativeKernel)
        except AttributeError:  # it is no part of CuPy's documented interface
            self._driver = None

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
        blocks, threads = grid
        blocks = blocks if isinstance(blocks, tuple) else (blocks,)
        compiled = self._compile(name, arguments[0].dtype.char, macros)
        compiled(blocks, (threads,), arguments, shared_mem=shared)

    def ready(
        self,
        name: str,
        char: str,
        kinds: str,
        grid: tuple[Any, int],
        shared: int = 0,
        macros: str = "",
        together: bool = False,
    ) -> Callable[..., None]:
        """A kernel ready to be launched on the device that is current at the first call: a function of its arguments.

        Parameters
        ----------
        name : str
        char : str
            Of the dtype that the kernel is compiled for.
        kinds : str
            A letter of `KINDS` for each argument.
        grid, shared, macros
            As in `launch`.
        together : bool
            All blocks at once, as they wait for each other, which `device_limits` must allow: CUDA refuses more of them
            than the device holds.
        """
        blocks, threads = grid
        blocks = blocks if isinstance(blocks, tuple) else (blocks,)
        kinds = kinds.replace("r", char)

        def compiled() -> Any:
            return self._compile(name, char, macros)

        if self._driver is not None:
            everywhere = (*blocks, 1, 1)[:3]
            return Launch(self.xp.cuda, compiled, kinds, (*everywhere, threads, 1, 1), shared, together)
        types = [KINDS[kind][1] for kind in kinds]

        def launch(*arguments: float) -> None:
            given = tuple(of(argument) for of, argument in zip(types, arguments, strict=True))
            compiled()(blocks, (threads,), given, shared_mem=shared)

        return launch

    def _compile(self, name: str, char: str, macros: str) -> Any:
        key = (name, char, macros, self.xp.cuda.runtime.getDevice())
        if key not in self._compiled:
            code = f"#define REAL {REAL[char]}\n{macros}{source(self._file_of[name])}"
            compiled = self.xp.RawModule(code=code).get_function(name)
            compiled.max_dynamic_shared_size_bytes = self.shared_limit() - compiled.shared_size_bytes
            self._compiled[key] = compiled
        return self._compiled[key]

    def shared_limit(self) -> int:
        """Bytes of shared memory that a block of the current device may ask for."""
        return self._attribute(SHARED_MEMORY_OPT_IN)

    def multiprocessors(self) -> int:
        """Multiprocessors of the current device."""
        return self._attribute(MULTIPROCESSORS)

    def _attribute(self, number: int) -> int:
        runtime = self.xp.cuda.runtime
        key = runtime.getDevice(), number
        if key not in self._attributes:
            self._attributes[key] = int(runtime.deviceGetAttribute(number, key[0]))
        return self._attributes[key]

    def blocks_at_once(self, name: str, char: str, threads: int, shared: int, macros: str = "") -> int:
        """Blocks of a kernel that one multiprocessor of the current device holds at once."""
        function = self._compile(name, char, macros).kernel.ptr
        return int(self.xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(function, threads, shared))

    def device_limits(self) -> tuple[int, int, bool]:
        """Multiprocessors of the current device, its compute capability as 90 for 9.0, and whether all blocks of a grid
        can be launched together."""
        count, major, minor, together = map(self._attribute, LIMITS)
        return count, 10 * major + minor, bool(together) and self._driver is not None
