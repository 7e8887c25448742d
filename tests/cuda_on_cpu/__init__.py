"""The real CuPy on a device that is not there: see README.md in this folder.

Nothing here imports CuPy, and importing this changes nothing: a process meets the fake device only where `environment`
(or `run.py`) has put its hook into PYTHONPATH.
"""

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from . import build

FOLDER = Path(__file__).resolve().parent
HOOK = FOLDER / "hook"
PREFIX = "CUDA_ON_CPU_"
SETTINGS = ("CAPABILITY", "DEVICES", "MODE", "ORDER", "CACHE", "LOG", "POOL", "NVRTC")


def unavailable() -> str | None:
    """Why the bench cannot be used here, or None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"CUDA on the CPU needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    if importlib.util.find_spec("cupy") is None:
        return "CUDA on the CPU needs CuPy: pip install cupy-cuda13x"
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            return f"CUDA on the CPU needs {tool} on the PATH"
    if build.cupy_for_cuda() != 13:
        return "CUDA on the CPU answers as CUDA 13: pip install cupy-cuda13x"
    return None


def environment(**settings: object) -> dict[str, str]:
    """The environment of a process that meets the fake device: this one's, and what the bench needs.

    Parameters
    ----------
    **settings
        ``capability="8.6"``, ``devices=2``, ``mode="idle"``, ``order="both"``, ``cache=folder``, ``log=file``,
        ``pool=True``, ``nvrtc=True``: the variables CUDA_ON_CPU_* of README.md. Those not named here are taken over.

    Raises
    ------
    RuntimeError
        Where `unavailable` gives a reason, or a setting is unknown.
    """
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    result = dict(os.environ)
    for name, value in settings.items():
        if name.upper() not in SETTINGS:
            raise RuntimeError(f"{name} is no setting of CUDA on the CPU, allowed are: {', '.join(SETTINGS).lower()}")
        result[PREFIX + name.upper()] = str(int(value)) if isinstance(value, bool) else str(value)
    result[PREFIX + "LIBRARIES"] = str(build.libraries(build.cache_folder(result)))
    before = [folder for folder in result.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", str(HOOK))]
    result["PYTHONPATH"] = os.pathsep.join([str(HOOK), *before])
    return result
