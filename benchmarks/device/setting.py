"""What the environment says of a run: on a device, or a rehearsal on one that is not there."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

REHEARSAL = bool(os.environ.get("GPU_CHECK_REHEARSAL"))
"""Shapes are small, PyTorch runs on the CPU in a process of its own, and every result says ``device: fake``."""

SHORT = REHEARSAL and os.environ["GPU_CHECK_REHEARSAL"] != "full"
"""A rehearsal of some of each step's items, in minutes."""

BREAK = dict(
    part.split(":", 1) for part in os.environ.get("GPU_CHECK_BREAK", "").split(",") if REHEARSAL and ":" in part
)
"""Faults to rehearse, by step: ``raise`` or ``hang`` (the step), ``die`` (the worker of its first item)."""


def on_device(full: int, rehearsed: int) -> int:
    """A size: the one that is worth measuring, or the one that a rehearsal can wait for."""
    return rehearsed if REHEARSAL else full


def device_name() -> str:
    """Name of the current device, for results; "fake" where there is none."""
    from attnbackends import get_backend

    runtime = get_backend("cupy").xp.cuda.runtime
    name = str(runtime.getDeviceProperties(runtime.getDevice())["name"].decode())
    return "fake" if REHEARSAL or name.startswith("no device") else name


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that is to find the sources, whatever else is set."""
    roots = [str(ROOT), *(str(ROOT / part) for part in ("src", "backends", "tests", "tests/plugins"))]
    inherited = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, [inherited]), *roots])} | changes
