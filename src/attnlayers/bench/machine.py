"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

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
        try:
            described = get_backend(name).machine.describe()
        except Exception as error:  # a device that answers, and then does not
            described = {"not described": f"{type(error).__name__}: {error}"}
        found[name] = ", ".join(f"{key} {value}" for key, value in described.items())
        if not get_backend(name).on_host:
            found["CUPY_TF32"] = os.environ.get("CUPY_TF32", "not set: off")
    return found


@dataclass(frozen=True)
class Missing:
    """Why a library cannot be loaded."""

    reason: str


def describe_peer(name: str, cuda: bool) -> str | Missing:
    """Version and settings of a library, or why it cannot be loaded here. For a process of its own."""
    try:
        library = load(name)
    except LeftOutError as reason:
        return Missing(str(reason))
    found = f"{library.__version__}"
    if name == "jax" and cuda:
        found += f", products of float32 by default: {library.config.jax_default_matmul_precision or 'the fastest'}"
    if name == "torch":
        found += f", {library.get_num_threads()} threads"
        if cuda and library.cuda.is_available():
            backends = library.backends
            tf32 = (f"{key} {'on' if on else 'off'}" for key, on in tf32_defaults(library).items())
            found += (
                f", CUDA {library.version.cuda}, cuDNN {backends.cudnn.version()}, TF32 by default: {', '.join(tf32)}"
            )
    return found


def tf32_defaults(torch: Any) -> dict[str, bool]:
    """Where PyTorch rounds float32 to TF32 as it stands: in matrix products, and in cuDNN, as ``nn.LSTM`` does."""
    return {"products": torch.backends.cuda.matmul.allow_tf32, "cuDNN": torch.backends.cudnn.allow_tf32}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
