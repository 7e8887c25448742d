"""The fake device within a process: what happens when it imports CuPy.

CuPy's wheel holds a copy of CUDA's runtime library, linked in for good. Each of its functions is made to begin with a
jump to the function of that name in the bench's library, or to a message that it is not there. The driver, which CuPy
opens by name, and cuBLAS are found because they are loaded before. NVRTC's place in CuPy is taken by `kernels`.
"""

import ctypes
import importlib.abc
import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from . import build, kernels

PAGE = 4096
EVERY_ACCESS = 7  # PROT_READ | PROT_WRITE | PROT_EXEC
WITH_A_RUNTIME = (
    "cupy_backends.cuda.api.runtime",
    *("cupy.cuda.cub", "cupy.cuda.thrust", "cupy.cuda.jitify", "cupy.random._generator_api"),
)
"""Compiled parts of CuPy that hold a copy of the runtime. Only the first one's functions are answered."""


def when_cupy_is_imported() -> None:
    """Have the device appear at the import of CuPy, and cost nothing before."""
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "cupy" and name not in WITH_A_RUNTIME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        if name == "cupy":
            _around(spec.loader, _before_cupy, _after_cupy)
        else:
            _around(spec.loader, None, _redirect_runtime)
        return spec


def _around(loader: Any, before: Any, after: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        if before is not None:
            before()
        execute(module)
        after(module)

    loader.exec_module = exec_module


_loaded: list[ctypes.CDLL] = []


def _before_cupy() -> None:
    folder = Path(os.environ["CUDA_ON_CPU_LIBRARIES"])
    for name in ("libcuda.so.1", "libcublas.so.13"):
        _loaded.append(ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL))
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are device code in the wheel
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"  # what is compiled here must not meet a real device later
    # CuPy has NVIDIA's package look for libraries, which would find nothing or the real ones.
    from cuda import pathfinder

    search = pathfinder.load_nvidia_dynamic_lib

    def load(name: str) -> Any:
        if name == "cublas":
            return None
        if name == "nvrtc":
            return search(name)
        raise pathfinder.DynamicLibNotFoundError(f"{name} is not there: CUDA on the CPU")

    pathfinder.load_nvidia_dynamic_lib = load


def _after_cupy(cupy: Any) -> None:
    from cupy.cuda import compiler

    compiler._NVRTCProgram = _program(compiler._NVRTCProgram)
    if os.environ.get("CUDA_ON_CPU_MODE", "run") != "idle" and os.environ.get("CUDA_ON_CPU_POOL", "0") != "1":
        # Each array an allocation of its own, with guard zones. The pool would cut them from one large piece.
        cupy.cuda.set_allocator(None)
        cupy.cuda.set_pinned_memory_allocator(None)


# -- the runtime that is linked into CuPy


def _redirect_runtime(module: Any) -> None:
    path = os.path.realpath(module.__file__)
    answered = module.__name__ == WITH_A_RUNTIME[0]
    base = _where_loaded(path)
    libc = ctypes.CDLL(None)
    out = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    found = [(base + int(at, 16), name) for at, name in re.findall(r"^(\w+) [tT] (cuda[A-Z]\w+)$", out, re.MULTILINE)]
    if not found:
        raise RuntimeError(f"{path} holds no runtime of CUDA: this CuPy is built otherwise than 14.2.0")
    low, high = min(found)[0] // PAGE * PAGE, max(found)[0] + PAGE
    if libc.mprotect(ctypes.c_void_p(low), ctypes.c_size_t(high - low), EVERY_ACCESS):
        raise RuntimeError(f"the code of {path} cannot be changed")
    for address, name in found:
        answer = getattr(_loaded[0], f"answer_{name}", None) if answered else None
        code = _jump_to_missing(name, module.__name__) if answer is None else _jump(_address(answer))
        ctypes.memmove(address, code, len(code))


def _where_loaded(path: str) -> int:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            if line.rstrip().endswith(path):
                return int(line.split("-")[0], 16)
    raise RuntimeError(f"{path} is not loaded")


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _jump(address: int) -> bytes:
    return b"\x48\xb8" + address.to_bytes(8, "little") + b"\xff\xe0"  # mov rax, address; jmp rax


_names: dict[str, Any] = {}


def _jump_to_missing(name: str, module: str) -> bytes:
    text = _names.setdefault(name + module, ctypes.create_string_buffer(f"{name} (called by {module})".encode()))
    # mov rdi, text; and on
    return b"\x48\xbf" + ctypes.addressof(text).to_bytes(8, "little") + _jump(_address(_loaded[0].cuda_on_cpu_missing))


# -- the compiler


def _program(real: Any) -> Any:
    """The class in the place of CuPy's `_NVRTCProgram`."""
    idle = os.environ.get("CUDA_ON_CPU_MODE", "run") == "idle"
    with_nvrtc = os.environ.get("CUDA_ON_CPU_NVRTC", "0") == "1"
    cache_at = build.cache_folder(os.environ)

    class Program:
        def __init__(
            self,
            src: str,
            name: str = "default_program",
            headers: Any = (),
            include_names: Any = (),
            name_expressions: Any = None,
            method: str = "ptx",
        ) -> None:
            self.source, self.names = src, tuple(name_expressions or ())
            self.real = real(src, name, headers, include_names, name_expressions, method) if with_nvrtc else None

        def compile(self, options: Any = (), log_stream: Any = None) -> tuple[bytes, dict[str, str] | None]:
            if self.real is not None:
                self.real.compile(options, log_stream)
            mapping = {name: f"instance_{i}" for i, name in enumerate(self.names)} if self.names else None
            if idle or not self.source.strip():
                return b"cuda_on_cpu:\0", mapping
            library = kernels.compile_kernels(defined(options) + self.source, self.names, cache_at)
            return b"cuda_on_cpu:" + str(library).encode() + b"\0", mapping

    return Program


def defined(options: Any) -> str:
    """Macros that are given to the compiler, as lines of the source."""
    given = [option[2:].partition("=") for option in options if option.startswith("-D")]
    return "".join(f"#define {name} {value or 1}\n" for name, _, value in given)
