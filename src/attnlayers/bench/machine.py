"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

from attnbackends import get_backend

from .. import __version__
from .contenders import LeftOutError
from .peers import load


def describe(backends: list[str]) -> dict[str, str]:
    """The machine, and what is installed for each backend, one short text for each heading."""
    found = {
        "date": date.today().isoformat(),
        "attnlayers": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
    }
    if hasattr(os, "getloadavg"):
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    for name in backends:
        described = get_backend(name).describe()
        found[name] = ", ".join(f"{key} {value}" for key, value in described.items())
        if not get_backend(name).on_host:
            found["CUPY_TF32"] = os.environ.get("CUPY_TF32", "not set: off")
    return found


def describe_peers(names: list[str], cuda: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of the libraries that can be loaded here, and for the others why not. For a process of its own."""
    there: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            library = load(name)
        except LeftOutError as reason:
            missing[name] = str(reason)
            continue
        there[name] = f"{library.__version__}"
        if name == "torch":
            there[name] += f", {library.get_num_threads()} threads"
            if cuda and library.cuda.is_available():
                tf32 = "on" if library.backends.cuda.matmul.allow_tf32 else "off"
                there[name] += f", CUDA {library.version.cuda}, cuDNN {library.backends.cudnn.version()}, TF32 {tf32}"
    return there, missing


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
