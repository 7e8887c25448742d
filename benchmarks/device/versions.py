"""What the machine is, and every kernel compiled on it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from attnbackends import get_backend
from attnbackends._cuda_kernels import FILES, REAL, source
from attnlayers.bench.machine import describe, describe_peer
from attnlayers.bench.processes import in_process

from .results import Entry
from .setting import on_device
from .workers import Item

WORKERS = on_device(min(14, os.cpu_count() or 1), 2)
"""NVRTC compiles on one core each."""

WIDTHS = (64, 128)
"""Head sizes that rows are padded to in tiles, which are in float32 alone."""

QUERIED = (
    "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,"
    "clocks_event_reasons.active"
)

LIBRARIES = re.compile(r"(nvidia|cuda|cupy|torch|triton|jax|numpy|array-api)", re.IGNORECASE)


def items(folder: Path) -> Iterator[Item]:
    """The machine, the libraries, then each kernel in each dtype and width."""
    yield Item("nvidia-smi", smi, on_device=False)
    yield Item("packages", packages, on_device=False)
    yield Item("attnlayers", library)
    for name in ("torch", "jax"):
        yield Item(name, peer, (name,), on_device=False)
    for file, names in FILES.items():
        tiled = "tiled" in file
        for name in names:
            for char in "f" if tiled else REAL:
                for macros in [f"#define WIDTH {width}\n" for width in WIDTHS] if tiled else [""]:
                    yield Item(f"{name}, {REAL[char]}{', ' + macros[8:].strip() if macros else ''}", compiled,
                               (file, name, char, macros))  # fmt: skip


def smi() -> Entry:
    """Clocks and driver by nvidia-smi, which changes nothing."""
    if shutil.which("nvidia-smi") is None:
        return {"left_out": "nvidia-smi is not on the PATH"}
    command = ["nvidia-smi", f"--query-gpu={QUERIED}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        return {"left_out": f"nvidia-smi: {(done.stdout + done.stderr).strip()}"}
    return dict(zip(QUERIED.split(","), (part.strip() for part in done.stdout.split(",")), strict=False))


def packages() -> Entry:
    """Versions of what counts here, and the interpreter's."""
    names = {package.metadata["Name"]: package.version for package in distributions()}
    found = {name: version for name, version in sorted(names.items()) if name and LIBRARIES.match(name)}
    return {"python": platform.python_version(), "cores": os.cpu_count(), **found}


def library() -> Entry:
    """As `attnlayers info` and the benchmark describe it: whether cuDNN takes a call, and TF32."""
    return describe(["cupy"]) | get_backend("cupy").trial()


def peer(name: str) -> Entry:
    """A library that attention is measured against, and its settings, in a process without CuPy."""
    found = in_process(describe_peer, name, True, limit=50.0)
    return {"described": found} if isinstance(found, str) else {"left_out": found.reason}


def compiled(file: str, name: str, char: str, macros: str) -> Entry:
    """Registers, bytes of local memory (spills and arrays) and of static shared memory of a kernel."""
    xp = get_backend("cupy").xp
    code = f"#define REAL {REAL[char]}\n{macros}{source(file)}"
    kernel = xp.RawModule(code=code).get_function(name)
    return {
        "registers": kernel.num_regs,
        "local_bytes": kernel.local_size_bytes,
        "shared_bytes": kernel.shared_size_bytes,
        "most_threads": kernel.max_threads_per_block,
    }
