"""compute-sanitizer on small shapes: accesses out of bounds or misaligned, and races in shared memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .exactness import SMALL
from .results import Entry
from .setting import ROOT, environment, on_device
from .workers import Item

WORKERS = on_device(min(8, os.cpu_count() or 1), 2)

TOOLS = ("memcheck", "racecheck")

PLACES = (Path("/usr/local/cuda/bin"),)
"""Where CUDA's toolkit has it, if it is not on the PATH."""

FOUND = 86
"""Its exit code where it found something: one that Python has no use for."""


def items(folder: Path) -> Iterator[Item]:
    for name in SMALL:
        for tool in TOOLS:
            yield Item(f"{tool}, {name}", checked, (tool, name), on_device(50, 300), on_device=False)


def checked(tool: str, name: str) -> Entry:
    """What a tool found in one check of `exactness`: its last line, and the first errors where there are some."""
    program = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, PLACES)]))
    if program is None:
        return {"left_out": "compute-sanitizer is neither on the PATH nor in CUDA's toolkit"}
    command = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "5"]
    command += [sys.executable, "-m", "benchmarks.device.exactness", name]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    told = [line.removeprefix("========= ") for line in done.stdout.splitlines() if line.startswith("=========")]
    summary = [line for line in told if re.search(r"SUMMARY", line)]
    if done.returncode not in (0, FOUND) or not summary:
        text = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise RuntimeError(f"{tool} ended with code {done.returncode}: {text}")
    if done.returncode == FOUND:
        raise RuntimeError(f"{summary[-1]}: {' | '.join(told[:40])}")
    return {"summary": summary[-1]}
