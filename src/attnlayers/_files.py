"""Files that are whole or not there: written aside, flushed, then renamed."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class FileError(RuntimeError):
    """A file cannot be written, or is not what it must be."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Replace `path` by what `write` leaves at the path it is called with.

    Parameters
    ----------
    path : Path
    write : callable
        Gets a path beside `path`, with its suffix.

    Raises
    ------
    FileError
        If the file cannot be written; what stood at `path` is untouched then.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".part{path.suffix}", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from error
    aside = Path(name)
    try:
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}; what stood there is untouched"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every system can flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def is_aside(path: Path) -> bool:
    """Whether a file is one that `write_whole` began and did not finish, unless it is at it."""
    return path.name.startswith(".") and path.suffixes[-2:-1] == [".part"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
