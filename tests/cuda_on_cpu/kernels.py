"""CUDA C++ to a library for the CPU: the bench's place of NVRTC.

A source is compiled as it is, after the header `device/cuda_on_cpu.hpp` and before one line for each kernel that tells
the bench how to call it. Only dynamic shared memory, which C++ cannot declare, is rewritten.
"""

import re
import tempfile
from functools import cache
from pathlib import Path

from . import build

HEADER = build.DEVICE / "cuda_on_cpu.hpp"

DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+|alignas\(\d+\)\s+)?([\w \t]+?)\s+(\w+)\[\];")
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\(([^(),]*)[^()]*\)\s*)?(\w+)\s*\(")
WAITS = re.compile(r"\b__sync(threads|warp)|_sync\s*\(|\b__nanosleep\b")
ONE_LOOP = re.compile(r"\bCUPY_(SORTED_)?FOR\b")


def compile_kernels(source: str, names: tuple[str, ...], cache_at: Path) -> Path:
    """The library for a source.

    Parameters
    ----------
    source : str
    names : tuple of str
        Instances of templates, such as ``"fill<float>"``; the i-th is called ``instance_<i>``.
    cache_at : Path

    Raises
    ------
    RuntimeError
        With what the compiler says.
    """
    text = unit(source, names)
    include = build.folder_of("cupy") / "_core" / "include"
    header = precompiled(cache_at)
    target = cache_at / "kernels" / f"{build.key_of(header.parent.name, str(include), text)}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".cpp") as file:
            file.write(text)
            file.flush()
            # g++ looks for what is precompiled beside the name that it is given.
            command = [*build.KERNEL_FLAGS, "-shared", "-include", str(header.with_suffix(""))]
            build.compile_with([*command, f"-I{build.DEVICE}", f"-I{include}", file.name], target)
    return target


def unit(source: str, names: tuple[str, ...]) -> str:
    """The source with what the bench has to know about its kernels."""
    kernels = [
        (name, bounds.strip() or "1024")
        for bounds, name in (found.groups("") for found in KERNEL.finditer(source))
        if not is_template(source, name)
    ]
    waits = "true" if WAITS.search(source) else "false"
    alone = "true" if ONE_LOOP.search(source) and waits == "false" else "false"
    text = DYNAMIC_SHARED.sub(r"static \1 *const \2 = (\1 *)cuda_on_cpu_shared;", source)
    lines = [f"DESCRIBE({name}, {waits}, {alone}, {bounds}, {name})" for name, bounds in kernels]
    lines += [f"DESCRIBE(instance_{i}, {waits}, {alone}, 1024, {name})" for i, name in enumerate(names)]
    return "\n".join([text, *lines, ""])


def is_template(source: str, name: str) -> bool:
    return (
        re.search(rf"template\s*<[^;{{}}]*>\s*__global__\s+void\s+(__launch_bounds__\s*\([^()]*\)\s*)?{name}\b", source)
        is not None
    )


@cache
def precompiled(cache_at: Path) -> Path:
    """The header before every kernel, compiled once: two thirds of the time that a kernel of CuPy takes."""
    sources = [path.read_bytes() for path in sorted(build.DEVICE.rglob("*.*"))]
    key = build.key_of(build.compiler(), *build.KERNEL_FLAGS, *sources)
    target = cache_at / f"header-{key}" / "cuda_on_cpu.hpp.gch"
    if not target.exists():
        build.compile_with([*build.KERNEL_FLAGS, "-x", "c++-header", f"-I{build.DEVICE}", str(HEADER)], target)
        target.with_suffix("").write_text('#error "the precompiled header does not fit"\n', encoding="utf-8")
    return target
