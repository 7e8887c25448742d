"""What g++ makes: the two libraries that stand for CUDA, and the header before every kernel. Each is kept in a cache by
what it is made of; processes that make the same at once write aside and rename."""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NATIVE, DEVICE = FOLDER / "native", FOLDER / "device"
LIBRARY_FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared"]
KERNEL_FLAGS = [
    *("-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden"),
    "-fno-strict-aliasing",  # kernels read memory by the types they please
    "-ffp-contract=off",  # the same results on every processor
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),  # a load that is not aligned is a trap
]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where compiled things are kept."""
    if environment.get("CUDA_ON_CPU_CACHE"):
        return Path(environment["CUDA_ON_CPU_CACHE"]).resolve()
    general = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(general) / "cuda_on_cpu"


def compile_with(command: list[str], target: Path) -> None:
    """Run g++ so that `target` appears whole or not at all.

    Raises
    ------
    RuntimeError
        With what the compiler says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=target.name, suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        done = subprocess.run(["g++", *command, "-o", aside], capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join(done.stderr.splitlines()[:30])
            raise RuntimeError(f"g++ cannot make {target.name}:\n{said}")
        Path(aside).rename(target)
    finally:
        Path(aside).unlink(missing_ok=True)


def key_of(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


@cache
def compiler() -> str:
    """The version of g++, a part of every key."""
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def folder_of(module: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{module} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def cupy_for_cuda() -> int | None:
    """The major version of CUDA that the installed wheel of CuPy is for."""
    for distribution in importlib.metadata.distributions():
        found = re.fullmatch(r"cupy[-_]cuda(\d+)x", distribution.metadata["Name"] or "", re.IGNORECASE)
        if found:
            return int(found[1])
    return None


def libraries(cache_at: Path) -> Path:
    """The folder with ``libcuda.so.1`` and ``libcublas.so.13``, made if need be."""
    sources = sorted([*NATIVE.iterdir(), DEVICE / "kernel.hpp"])
    wanted = names_wanted(next((folder_of("cupy_backends") / "cuda" / "libs").glob("cublas.*.so")), "cublas")
    key = key_of(compiler(), *LIBRARY_FLAGS, *(source.read_bytes() for source in sources), *wanted)
    folder = cache_at / f"libraries-{key}"
    blas, driver = folder / "libcublas.so.13", folder / "libcuda.so.1"
    if blas.exists() and driver.exists():
        return folder
    parts = [str(path) for path in sources if path.suffix == ".cpp" and not path.name.startswith("blas")]
    compile_with([*LIBRARY_FLAGS, "-Wl,-soname,libcuda.so.1", *parts, "-ldl"], driver)
    text = (NATIVE / "blas.cpp").read_text(encoding="utf-8")
    there = names_written(text)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".cpp") as stubs:
        stubs.write('extern "C" [[noreturn]] void cuda_on_cpu_missing(const char *name);\n')
        stubs.writelines(
            f'extern "C" __attribute__((visibility("default"))) void {name}() {{ cuda_on_cpu_missing("{name}"); }}\n'
            for name in wanted
            if name not in there
        )
        stubs.flush()
        # CuPy asks for these names in the version libcublas.so.13.
        command = [*LIBRARY_FLAGS, "-Wl,-soname,libcublas.so.13", f"-Wl,--version-script={NATIVE / 'blas.map'}"]
        compile_with([*command, str(NATIVE / "blas.cpp"), stubs.name, str(driver)], blas)
    return folder


def names_written(text: str) -> set[str]:
    """The functions in blas.cpp, those of a macro in both precisions."""
    names = set(re.findall(r"\bcublas\w+(?=\()", text))
    macros = re.findall(r"\bcublas##letter##(\w+)\(", text)
    return names | {f"cublas{letter}{name}" for name in macros for letter in "SD"}


def names_wanted(extension: Path, prefix: str) -> list[str]:
    """Functions of a CUDA library that a compiled part of CuPy asks the linker for."""
    out = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(rf" U ({prefix}\w+)", out)))
