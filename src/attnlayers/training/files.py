"""Files of a run."""

from collections.abc import Callable
from pathlib import Path

from .._files import FileError
from .._files import write_whole as _write_whole


class RunError(RuntimeError):
    """A run folder, or a file in it, is not what it must be."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Replace `path` by what `write` leaves at the path it is called with, as a whole.

    Raises
    ------
    RunError
        If the file cannot be written; what stood at `path` is untouched then.
    """
    try:
        _write_whole(path, write)
    except FileError as error:
        raise RunError(str(error)) from error.__cause__
