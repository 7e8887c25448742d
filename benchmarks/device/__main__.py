"""``python -m benchmarks.device STEP FOLDER SECONDS``: see the package."""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path

from .results import Section
from .setting import BREAK
from .table import print_table
from .workers import Item, measured

MODULES = {
    "versions": "versions",
    "exactness": "exactness",
    "tests": "suite",
    "sanitizer": "sanitizer",
    "attention": "attention",
    "training": "training",
    "recurrent": "recurrent",
    "tuning": "tuning",
}


def main(step: str, folder: Path, seconds: float) -> None:
    """Run a step; `seconds` is when it has to be done by itself."""
    if BREAK.get(step) == "hang":
        time.sleep(10 * seconds)
    if BREAK.get(step) == "raise":
        raise RuntimeError(f"{step} was asked to fail")
    if step == "table":
        print_table(folder)
        return
    module = import_module(f"{__package__}.{MODULES[step]}")
    section = Section(folder, step)
    items = list(module.items(folder))
    if BREAK.get(step) == "die":
        items.insert(0, Item("a worker that dies", os._exit, (9,)))
    measured(items, section.add, seconds, module.WORKERS)
    section.end()
    failed = [entry["item"] for entry in section.items if "failed" in entry]
    print(f"{step}: {len(section.items)} items, {len(failed)} failed")
    for name in failed:
        print(f"  failed: {name}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
