"""The run of `attnlayers train`: begun or gone on with, by one process or by several, and stopped by a signal."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from time import monotonic, sleep
from types import FrameType
from typing import Any

from ..distributed import Ranks
from ..training import RunError, RunFolder, Settings
from ..training.settings import option

VISIBLE_SECONDS = 10.0
"""How long a host waits for a folder that another one has made: file systems over a network show it late."""

GRACE_SECONDS = 10.0
"""How long ranks that were interrupted have to end their step and to save."""

TWICE_SECONDS = 1.0
"""How far apart the same signal may come from a terminal and from mpiexec."""


def open_run(ranks: Ranks, path: Path, given: dict[str, Any], *, resume: bool) -> RunFolder:
    """Begin a run with the settings that are given, or go on with one; rank 0 writes, the others read what it wrote."""
    asked = {option(name): value for name, value in given.items()}
    ranks.agree(asked | {"--out": str(path), "--resume": resume})
    run: RunFolder | None = None

    def make() -> None:
        nonlocal run
        if ranks.first:
            run = _resume(path, given) if resume else _begin(path, given)

    try:
        ranks.together(make)
        opened = ranks.together(lambda: run or _open_as_made(ranks, path))
        same = "let all hosts see one run folder, on a file system that they share, and the same data"
        ranks.agree(ranks.together(lambda: _digests(opened)) if ranks.size > 1 else {}, same)
    except BaseException:
        if run is not None and not resume:
            run.discard()
        raise
    return opened


def _begin(path: Path, given: dict[str, Any]) -> RunFolder:
    settings = Settings.of(**given)
    RunFolder.check_free(path)  # before minutes of reading
    pairs = settings.pairs()
    return RunFolder.create(path, settings, pairs, settings.vocabulary(pairs))


def _resume(path: Path, given: dict[str, Any]) -> RunFolder:
    run = RunFolder.open(path)
    run.settings.check_given(given)
    changed = {name: given[name] for name in ("epochs", "patience") if name in given}
    moved = given.get("data", run.settings.data)
    for name, value in given.items():
        of_run = getattr(run.settings, name)
        if value != of_run and name not in (*changed, "data"):
            is_, got = f"{option(name)} is {of_run}", str(value)
            if isinstance(value, bool):
                on, off = option(name), option(f"no_{name}")
                is_, got = ("it is " + (on if of_run else off)), on if value else off
            raise RunError(f"{is_} in the run {path}, got {got}: leave it out, or start a run in another --out")
    if moved != run.settings.data:
        run.move_data(moved)
    settings = replace(run.settings, **changed)
    if settings != run.settings:
        run.write_config(settings)
    return run


def _open_as_made(ranks: Ranks, path: Path) -> RunFolder:
    begun = monotonic()
    while not (path / "config.json").exists():
        if monotonic() - begun > VISIBLE_SECONDS:
            raise RunError(
                f"the run folder {path.absolute()}, which rank 0 has made, is not there: give --out a folder on a file "
                "system that all hosts share"
            )
        sleep(0.05)
    return RunFolder.open(path)


def _digests(run: RunFolder) -> dict[str, str]:
    """What ranks must see alike, in short."""
    paths = {name: run.path / name for name in ("config.json", "vocabulary.json", "checkpoint.safetensors")}
    if run.settings.free_text:
        paths["the data"] = Path(run.settings.data)
    return {name: _digest(path) for name, path in paths.items()}


def _digest(path: Path) -> str:
    if not path.exists():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


class Interrupts:
    """When Ctrl-C or SIGTERM came, if it did, and what that calls.

    Attributes
    ----------
    came : float or None
    stop : callable or None
        Without it, a signal interrupts at once.
    """

    came: float | None = None
    stop: Callable[[], object] | None = None


@contextmanager
def interrupts(ranks: Ranks, give_up: Callable[[], object]) -> Iterator[Interrupts]:
    """Let Ctrl-C or SIGTERM call `stop`, so that a step can end; a second one interrupts at once.

    Ranks may get each signal twice, from the terminal and from mpiexec. Where they wait for one that does not answer,
    `give_up` is called after `GRACE_SECONDS`.
    """
    found = Interrupts()
    timer = Timer(GRACE_SECONDS, give_up)
    timer.daemon = True

    def handle(number: int, frame: FrameType | None) -> None:
        if found.came is not None:
            if ranks.size == 1 or monotonic() - found.came > TWICE_SECONDS:
                raise KeyboardInterrupt
            return
        found.came = monotonic()
        if ranks.size > 1:
            timer.start()
        if found.stop is None:
            raise KeyboardInterrupt
        found.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        timer.cancel()
        for number, old in before.items():
            signal.signal(number, old)
