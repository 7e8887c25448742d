"""The tests with a CuPy variant, file by file in several processes, as one JUnit XML."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from attnlayers.bench.processes import CAUSE, ending

from .plugin import ENDED
from .results import Entry
from .setting import REHEARSAL, ROOT, environment, on_device
from .workers import Item

WORKERS = on_device(min(14, os.cpu_count() or 1), 2)

FILE = "tests.xml"

LAST_WORDS = 2500
"""Characters that are kept of what a process said before it ended: Python's own words, and those of a C library."""

TRIES = 4
"""Processes for one file: each ends at an error that poisons its device, and the next one goes on behind it."""

SELECTED = ["tests/attnbackends/test_operations.py", "tests/attnlayers/functional/test_dropout.py"]
"""What a rehearsal runs."""


def items(folder: Path) -> Iterator[Item]:
    """The largest files first: the last one to end decides."""
    files = [ROOT / name for name in SELECTED] if REHEARSAL else (ROOT / "tests").glob("attn*/**/test_*.py")
    found = [path for path in files if "library" in path.read_text(encoding="utf-8")]
    (folder / FILE).write_text("<testsuites/>\n", encoding="utf-8")
    for path in sorted(found, key=lambda path: -path.stat().st_size):
        yield Item(str(path.relative_to(ROOT)), tested, (path, folder), on_device(90, 600), on_device=False)


def tested(path: Path, folder: Path) -> Entry:
    """Counts of a file's tests, the ids of those that failed, and what they or their process said."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: list[str] = []
    reasons: dict[str, str] = {}
    poisoned = ""
    with tempfile.TemporaryDirectory() as room:
        for attempt in range(TRIES):
            report, done = Path(room, f"{attempt}.xml"), Path(room, "done")
            command = [sys.executable, "-m", "pytest", "-q", "-k", "cupy", "-p", "benchmarks.device.plugin"]
            # Only Python's own output is captured: what a library prints before it ends the process must come here.
            command += [
                "-p",
                "no:cacheprovider",
                "--capture=sys",
                "--tb=short",
                f"--junitxml={report}",
                f"--done={done}",
                str(path),
            ]
            changes = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            ended = subprocess.run(
                command, env=environment(**changes), cwd=ROOT, capture_output=True, text=True, check=False
            )
            told = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
            for name in counts:
                counts[name] = len(told.get(name, []))
            failures, poisoned = told.get("failed", []), told.get("poisoned", "")
            reasons |= told.get("reasons", {})
            if running := told.get("running"):
                reasons[running + ENDED] = _last_words(ended.stdout + ended.stderr) + ending(ended.returncode)
            if report.exists():
                _merge(folder / FILE, report)
            if ended.returncode in (0, 1, 5) and not poisoned:
                break
            if not (poisoned or told.get("running")) or attempt == TRIES - 1:
                raise RuntimeError(f"pytest ended with code {ended.returncode}:\n{ended.stdout[-4000:]}{ended.stderr}")
    entry: Entry = {"counts": counts, "failures": failures}
    if failures:
        told = [f"{name.partition('::')[2]}: {_cause(reasons[name])}" for name in failures]
        texts = [f"{name}:\n{reasons[name]}" for name in failures]
        entry["failed"] = {"stage": "tests", "reason": " | ".join(told), "traceback": "\n".join(texts)}
    return entry | ({"poisoned": poisoned} if poisoned else {})


def _last_words(said: str) -> str:
    """The last lines of a process; where Python told a fault, without the frames of pytest."""
    lines = [line[:CAUSE] for line in said.splitlines() if not re.search(r"/_pytest/|/pluggy/|<frozen ", line)]
    return "\n".join([*lines, ""])[-LAST_WORDS:]


def _cause(text: str) -> str:
    """The error in a traceback of pytest's on one line, or the last line of something else."""
    found = [line[1:] for line in text.splitlines() if line.startswith("E ")] or text.splitlines()[-1:]
    return " ".join(" ".join(found).split())[:CAUSE]


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
