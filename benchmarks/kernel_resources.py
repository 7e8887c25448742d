"""Registers, local memory and shared memory of the CUDA kernels, as they are compiled for each compute capability.

``python -m benchmarks.kernel_resources [CAPABILITY ...] [--json FILE]`` compiles every kernel for every dtype and tile
that the capability is given, with `nvcc`; no device is needed. Without `nvcc` CuPy compiles them for the device that is
there. Local memory, spills included, is slow memory outside of the chip: it should be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from attnbackends._cuda.compiled import FILES, REAL, SHARED_MEMORY_OPT_IN, source
from attnbackends._cuda.decode import Shape
from attnbackends._cuda.lstm_grid import ROWS
from attnbackends._cuda.tiles import tile_for
from attnbackends._cuda.weighted import BLOCK, macros_for

SHARED_KB = {"7.5": 64, "8.0": 163, "8.6": 99, "8.9": 99, "9.0": 227, "10.0": 227, "12.0": 99}
"""Shared memory that a block may ask for, by compute capability; from the CUDA C++ programming guide."""

OPTIONS = 0, 15
"""Sets of options of `CudaCall.options`: none, and all of them."""

TILED_OPTIONS = 0, 11, 15
"""The same for tiles, where a thread has no register to spare: none, all but sinks, which took the most, and all."""

WIDTHS = 64, 128, 256
"""What the rows of tiles are padded to."""


class Variant(NamedTuple):
    """One compilation of a file; `shared` are the bytes that its blocks are launched with, if that is fixed."""

    file: str
    dtype: str
    macros: str = ""
    shared: int | None = None

    @property
    def code(self) -> str:
        return f"#define REAL {REAL[self.dtype]}\n{self.macros}{source(self.file)}"


class Resources(NamedTuple):
    """What one kernel takes. `registers` are of a thread, `local` bytes of a thread, `shared` bytes of a block."""

    capability: str
    kernel: str
    dtype: str
    macros: str
    registers: int
    local: int
    shared: int | None


def variants(limit: int) -> Iterator[Variant]:
    """What a device whose blocks may have `limit` bytes of shared memory is given."""
    for file in FILES:
        if file == "lstm.cu":
            yield from (
                Variant(file, dtype, f"#define ROWS {rows}\n") for dtype in REAL for rows in (ROWS[0], ROWS[-1])
            )
            continue
        if file == "attention_decode.cu":
            yield from (Variant(file, shape.sums, shape.macros) for shape in decode_shapes())
            continue
        if file == "attention_small.cu":
            yield from (Variant(file, dtype, f"#define OPTIONS {options}\n") for dtype in REAL for options in OPTIONS)
            continue
        if file == "attention_weights.cu":
            yield from weights_variants(file)
            continue
        if not file.startswith("attention_tiled"):
            yield from (Variant(file, dtype) for dtype in REAL)
            continue
        for width in WIDTHS:
            backward = "backward" in file
            for options in TILED_OPTIONS:
                tile = tile_for(width, backward, limit, options)
                if tile is not None:
                    yield Variant(file, "f", tile.macros, tile.bytes(backward))


def weights_variants(file: str) -> Iterator[Variant]:
    """The kernels between products with all options, for rows of a warp and of a block, and in float32 without."""
    for dtype, options in (("float32", 0), ("float32", 15), ("float64", 15), ("float16", 15)):
        for of_a_row in (32, BLOCK):
            yield Variant(file, "d" if dtype == "float64" else "f", macros_for(dtype, of_a_row, options))


def decode_shapes() -> Iterator[Shape]:
    """What the kernel for few queries is compiled for at usual head sizes."""
    for stored in ("float32", "float64", "float16"):
        for width, rows, options in (
            (64, 1, 0),
            (64, 1, 15),
            (64, 4, 0),
            (64, 8, 0),
            (64, 8, 15),
            (256, 1, 0),
            (256, 4, 0),
        ):
            shape = Shape.of(stored, width, rows, options)
            if shape is not None and shape.rows == rows:
                yield shape


def with_nvcc(capability: str, variant: Variant) -> list[Resources]:
    """The report of `ptxas` on the kernels of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cu"
        path.write_text(variant.code, encoding="utf-8")
        target = f"-arch=sm_{capability.replace('.', '')}"
        command = [
            "nvcc",
            target,
            "-std=c++17",
            "-Werror",
            "all-warnings",
            "-cubin",
            "-Xptxas",
            "-v",
            "-o",
            f"{folder}/kernels.cubin",
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvcc does not compile {variant.file} for {capability}: {done.stdout}{done.stderr}")
    report = done.stdout + done.stderr
    found = re.findall(
        r"Function properties for (\w+)\s+(\d+) bytes stack frame.*?Used (\d+) registers", report, re.DOTALL
    )
    if {name for name, *_ in found} != set(FILES[variant.file]):
        raise RuntimeError(f"ptxas reports on {found}, not on {FILES[variant.file]}: {report}")
    return [
        Resources(capability, name, variant.dtype, variant.macros, int(registers), int(local), variant.shared)
        for name, local, registers in found
    ]


def with_cupy(cupy: Any, capability: str, variant: Variant) -> list[Resources]:
    """What the driver of a device says of the kernels of a file."""
    module = cupy.RawModule(code=variant.code)
    functions = {name: module.get_function(name) for name in FILES[variant.file]}
    return [
        Resources(capability, name, variant.dtype, variant.macros, f.num_regs, f.local_size_bytes, variant.shared)
        for name, f in functions.items()
    ]


def measure(capabilities: list[str]) -> Iterator[Resources]:
    """All kernels for some capabilities with `nvcc`, or else for the device that is there, each as it is ready."""
    if shutil.which("nvcc"):
        jobs = [(name, variant) for name in capabilities for variant in variants(SHARED_KB[name] * 1024)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in pool.map(lambda job: with_nvcc(*job), jobs):
                yield from rows
        return
    import cupy  # noqa: TID251  what it is asked for has no place in a backend

    device = cupy.cuda.Device()
    capability = f"{device.compute_capability[:-1]}.{device.compute_capability[-1]}"
    limit = int(cupy.cuda.runtime.deviceGetAttribute(SHARED_MEMORY_OPT_IN, device.id))
    for variant in variants(limit):
        yield from with_cupy(cupy, capability, variant)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capabilities", nargs="*", metavar="CAPABILITY", help=f"of {', '.join(SHARED_KB)} [all]")
    parser.add_argument("--json", type=Path, help="a file for the same as JSON [none]")
    options = parser.parse_args()
    unknown = set(options.capabilities) - set(SHARED_KB)
    if unknown:
        parser.error(f"CAPABILITY must be of {', '.join(SHARED_KB)}, got {', '.join(sorted(unknown))}")
    rows: list[Resources] = []
    print(f"{'':5} {'kernel':26} {'dtype':6} {'tile':33} {'registers':>9} {'local':>6} {'shared':>7}")
    for row in measure(options.capabilities or list(SHARED_KB)):
        rows.append(row)
        tile = ", ".join(f"{name.lower()} {value}" for name, value in re.findall(r"#define (\w+) (\d+)", row.macros))
        shared = "" if row.shared is None else str(row.shared)
        kind = REAL[row.dtype]
        print(
            f"{row.capability:5} {row.kernel:26} {kind:6} {tile:33} {row.registers:>9} {row.local:>6} {shared:>7}",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(any(row.local for row in rows))


if __name__ == "__main__":
    sys.exit(main())
