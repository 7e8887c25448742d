"""The tests with a CuPy variant, file by file in several processes, as one JUnit XML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from .results import Entry
from .setting import REHEARSAL, ROOT, environment, on_device
from .workers import Item

WORKERS = on_device(min(14, os.cpu_count() or 1), 2)

FILE = "tests.xml"

TRIES = 4
"""Processes for one file: each ends at an error that poisons its device, and the next one goes on behind it."""

SELECTED = ["tests/attnbackends/test_operations.py", "tests/attnlayers/layers/test_dropout.py"]
"""What a rehearsal runs."""


def items(folder: Path) -> Iterator[Item]:
    """The largest files first: the last one to end decides."""
    files = [ROOT / name for name in SELECTED] if REHEARSAL else (ROOT / "tests").glob("attn*/**/test_*.py")
    found = [path for path in files if path.exists() and "library" in path.read_text(encoding="utf-8")]
    (folder / FILE).write_text("<testsuites/>\n", encoding="utf-8")
    for path in sorted(found, key=lambda path: -path.stat().st_size):
        yield Item(str(path.relative_to(ROOT)), tested, (path, folder), on_device(90, 600), on_device=False)


def tested(path: Path, folder: Path) -> Entry:
    """Counts of a file's tests, and the ids of those that failed."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: list[str] = []
    poisoned = ""
    with tempfile.TemporaryDirectory() as room:
        for attempt in range(TRIES):
            report, done = Path(room, f"{attempt}.xml"), Path(room, "done")
            command = [sys.executable, "-m", "pytest", "-q", "-k", "cupy", "-p", "benchmarks.device.plugin"]
            command += ["-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}", f"--done={done}", str(path)]
            changes = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            ended = subprocess.run(
                command, env=environment(**changes), cwd=ROOT, capture_output=True, text=True, check=False
            )
            told = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
            for name in counts:
                counts[name] = len(told.get(name, []))
            failures, poisoned = told.get("failed", []), told.get("poisoned", "")
            if report.exists():
                _merge(folder / FILE, report)
            if ended.returncode in (0, 1, 5) and not poisoned:
                break
            if not (poisoned or told.get("running")) or attempt == TRIES - 1:
                raise RuntimeError(f"pytest ended with code {ended.returncode}:\n{ended.stdout[-4000:]}{ended.stderr}")
    entry: Entry = {"counts": counts, "failures": failures}
    if failures:
        reason = f"{len(failures)} tests failed"
        entry["failed"] = {"stage": "tests", "reason": reason, "traceback": "\n".join(failures)}
    return entry | ({"poisoned": poisoned} if poisoned else {})


def _merge(into: Path, report: Path) -> None:
    """Append the suites of one report to those of another, under a lock: several workers do."""
    import fcntl

    with into.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = ElementTree.fromstring(file.read())
        try:
            whole.extend(ElementTree.parse(report).getroot())
        except ElementTree.ParseError:  # its process was killed while it wrote
            return
        file.seek(0)
        file.truncate()
        file.write(ElementTree.tostring(whole, encoding="unicode"))
