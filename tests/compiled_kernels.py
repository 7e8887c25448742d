"""The CUDA kernels compiled for the CPU, and run there thread by thread."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ROOT

from attnbackends._cuda_kernels import FILES, FOLDER, REAL

STAND_IN = ROOT / "tests" / "cupy_standin"

RUN = """extern "C" bool run_{name}(bool backwards, int x, int y, int threads, void **arguments) {{
    return run(backwards, x, y, threads, arguments, {name}); }}
"""


def compiled(folder: Path, file: str, real: str, macros: str = "") -> ctypes.CDLL:
    """A file of kernels as a library for the CPU; skips the test where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not on the PATH")
    launchers = "".join(RUN.format(name=name) for name in FILES[file])
    (folder / "all.cpp").write_text(f'#include "run_cuda_on_cpu.hpp"\n{macros}#include "{FOLDER / file}"\n{launchers}')
    command = [compiler, "-std=c++20", "-O1", "-fPIC", "-shared", f"-I{STAND_IN}", f"-DREAL={real}"]
    done = subprocess.run(
        [*command, "-o", str(folder / "all.so"), str(folder / "all.cpp")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "all.so"))


def second() -> Any:
    """The kernels a second time, in NumPy: the stand-in's, without the stand-in."""
    name = "second_kernels"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STAND_IN / "cupy" / "kernels.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass
class CpuKernels:
    """Launches kernels on the CPU in the place of `attnbackends._cuda_kernels.Kernels`.

    Each call runs with the turns of the threads in either order, whose results must be equal, and must agree with the
    kernel's second version.
    """

    folder: Path
    shared: int = 227 * 1024  # of compute capability 9.0
    on: bool = True

    def __post_init__(self) -> None:
        self.libraries: dict[tuple[str, str, str], ctypes.CDLL] = {}
        self.launched: list[str] = []

    def shared_limit(self) -> int:
        return self.shared

    def launch(
        self, name: str, grid: tuple[Any, int], arguments: tuple[Any, ...], shared: int = 0, macros: str = ""
    ) -> None:
        file = next(file for file, names in FILES.items() if name in names)
        dtype = next(a for a in arguments if isinstance(a, np.ndarray)).dtype
        key = (file, dtype.char, macros)
        if key not in self.libraries:
            folder = self.folder / f"{file}{dtype.char}{len(self.libraries)}"
            folder.mkdir()
            self.libraries[key] = compiled(folder, file, REAL[dtype.char], macros)
        assert shared <= self.shared
        blocks, threads = grid
        x, y = blocks if isinstance(blocks, tuple) else (blocks, 1)
        before = [own_copy(a) for a in arguments]
        results = []
        for backwards in (False, True):
            values = [own_copy(a) if backwards else a for a in (before if backwards else arguments)]
            pointers = [ctypes.c_void_p(a.ctypes.data if isinstance(a, np.ndarray) else int(a)) if is_pointer(a)
                        else scalar(a) for a in values]  # fmt: skip
            packed = (ctypes.c_void_p * len(values))(*(ctypes.addressof(p) for p in pointers))
            assert getattr(self.libraries[key], f"run_{name}")(backwards, x, y, threads, packed), f"{name} got stuck"
            results.append([a for a in values if isinstance(a, np.ndarray)])
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other, f"{name} depends on the order of its threads")
        plain = [own_copy(a) for a in before]
        with np.errstate(all="ignore"):
            getattr(second(), name)(*plain)
        largest = max(float(np.max(a, where=np.isfinite(a) & (a < 1e29), initial=1)) for a in before if is_real(a))
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        for one, other in zip(results[0], (a for a in plain if isinstance(a, np.ndarray)), strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * largest)
        self.launched.append(name)


def is_real(argument: Any) -> bool:
    return isinstance(argument, np.ndarray) and argument.dtype.kind == "f"


def is_pointer(argument: Any) -> bool:
    return isinstance(argument, (np.ndarray, np.uintp))


def own_copy(argument: Any) -> Any:
    """A copy with the same strides; a scalar is itself."""
    if not isinstance(argument, np.ndarray):
        return argument
    if argument.flags.c_contiguous:
        return argument.copy()
    low, high = np.lib.array_utils.byte_bounds(argument)
    room = np.empty(high - low, dtype=np.uint8)
    view = np.ndarray(
        argument.shape, argument.dtype, room, argument.__array_interface__["data"][0] - low, argument.strides
    )
    view[...] = argument
    return view


def scalar(argument: Any) -> Any:
    """A scalar of NumPy as one of C."""
    kinds = {
        np.int32: ctypes.c_int,
        np.int64: ctypes.c_longlong,
        np.float32: ctypes.c_float,
        np.float64: ctypes.c_double,
    }
    return kinds[type(argument)](argument)
