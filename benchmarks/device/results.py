"""``results.json``: one section for each step, whole on the disk after every item."""

from __future__ import annotations

import json
import re
import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnlayers.training.files import write_whole

from .setting import REHEARSAL, ROOT

FILE = "results.json"

FOLDERS = {str(ROOT), str(Path.cwd()), sysconfig.get_path("stdlib"), tempfile.gettempdir(), str(Path.home())} - {"/"}
PLACES = re.compile(
    "|".join(
        [r"(?:/[^/\s\"']+)*/(?:site|dist)-packages/", *(f"{re.escape(x)}/" for x in sorted(FOLDERS, reverse=True))]
    )
)
"""Where things lie on this machine: what a path begins with before it means the same elsewhere."""

Entry = dict[str, Any]


class Section:
    """What one step found.

    Parameters
    ----------
    folder : Path
    step : str
        A section of that name that is there already is replaced; those of other steps stay.
    """

    def __init__(self, folder: Path, step: str) -> None:
        self._path, self._step = folder / FILE, step
        self._start = time.monotonic()
        self.items: list[Entry] = []
        self._write("begun")

    def add(self, entry: Entry) -> None:
        """Note what an item came to."""
        self.items.append(without_places(entry) | ({"device": "fake"} if REHEARSAL else {}))
        self._write("begun")

    def end(self) -> None:
        """Say that nothing was cut off from outside."""
        self._write("ended")

    def _write(self, state: str) -> None:
        found = read(self._path.parent)
        seconds = round(time.monotonic() - self._start, 2)
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        found[self._step] = {"state": state, "date": date, "seconds": seconds, "items": self.items}
        text = json.dumps(found, indent=1) + "\n"
        write_whole(self._path, lambda aside: aside.write_text(text, encoding="utf-8"))


def without_places(found: Any) -> Any:
    """The same with paths that begin in the repository, in an installed package or in Python's library."""
    if isinstance(found, str):
        return PLACES.sub("", found)
    if isinstance(found, dict):
        return {key: without_places(value) for key, value in found.items()}
    return [without_places(value) for value in found] if isinstance(found, list) else found


def read(folder: Path) -> dict[str, Any]:
    """All sections by step; none where there is no file."""
    path = folder / FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
