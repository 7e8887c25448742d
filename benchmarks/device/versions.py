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
from attnbackends._cuda.compiled import REAL
from attnlayers.bench.machine import describe, describe_peer
from attnlayers.bench.processes import in_process
from benchmarks.kernel_resources import SHARED_KB, Variant, variants, with_cupy

from .results import Entry
from .setting import on_device
from .workers import Item

WORKERS = on_device(min(14, os.cpu_count() or 1), 2)
"""NVRTC compiles on one core each."""

QUERIED = (
    "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,"
    "clocks_event_reasons.active"
)

LIBRARIES = re.compile(r"(nvidia|cuda|cupy|torch|triton|jax|numpy|array-api)", re.IGNORECASE)


def items(folder: Path) -> Iterator[Item]:
    """The machine, the libraries, then each kernel in each dtype and tile that some device is given."""
    known: list[Variant] = []
    yield Item("nvidia-smi", smi, on_device=False)
    yield Item("packages", packages, on_device=False)
    yield Item("attnlayers", library)
    for name in ("torch", "jax"):
        yield Item(name, peer, (name,), on_device=False)
    for limit in sorted({1024 * size for size in SHARED_KB.values()}):  # the one of this device is among them
        for variant in variants(limit):
            if variant not in known:
                known.append(variant)
    for variant in known:
        tile = " x ".join(re.findall(r"#define \w+ (\d+)", variant.macros))
        yield Item(" ".join([variant.file, REAL[variant.dtype], tile]).strip(), compiled, (variant,))


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
    return describe(["cupy"]) | get_backend("cupy").machine.trial()


def peer(name: str) -> Entry:
    """A library that attention is measured against, and its settings, in a process without CuPy."""
    found = in_process(describe_peer, name, True, limit=50.0)
    return {"described": found} if isinstance(found, str) else {"left_out": found.reason}


def compiled(variant: Variant) -> Entry:
    """Registers and bytes of local memory (spills and arrays) of a file's kernels, as the device's driver says."""
    xp = get_backend("cupy").xp
    rows = with_cupy(xp, xp.cuda.Device().compute_capability, variant)
    return {"shared_bytes": variant.shared, "kernels": {row.kernel: [row.registers, row.local] for row in rows}}
