"""Pairs of texts from a file."""

from __future__ import annotations

import codecs
from os import PathLike
from pathlib import Path

from .errors import DataError, quote

__all__ = ["read_pairs"]

_EXPECTED = {
    "\t": "expected one tab between source and target",
    "_": "expected one '_' between source and target (or one tab, from line 1 on)",
}


def read_pairs(path: str | PathLike[str]) -> list[tuple[str, str]]:
    """Read the pairs of `path`, one a line, in the order of the file.

    A tab in the first line makes it a file of ``source<TAB>target`` lines, whose texts are taken as
    they stand. Otherwise the lines are ``source_target``, as in the data sets of "Deep Learning
    from Scratch 2" (chapter 7), and spaces that pad a text on its right are dropped.

    Parameters
    ----------
    path : path
        A UTF-8 file, with or without a byte order mark, with LF or CRLF line ends.

    Returns
    -------
    pairs : list of (source, target)

    Raises
    ------
    DataError
        Where the file cannot be read or a line is not a pair; the message names file and line.
    """
    path = Path(path)
    lines = _read_lines(path)
    separator = "\t" if "\t" in lines[0] else "_"
    return [_read_pair(line, separator, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _read_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file of source<TAB>target lines")
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a file of source<TAB>target lines") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    if not text:
        raise DataError(f"{path} is empty; write one source<TAB>target pair a line")
    # Not `splitlines`: it also splits at form feeds and the like, which may stand in a text.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_pair(line: str, separator: str, where: str) -> tuple[str, str]:
    if not line.strip():
        raise DataError(f"{where} is blank; remove it")
    if (count := line.count(separator)) != 1:
        raise DataError(f"{where}: {_EXPECTED[separator]}, got {count or 'none'} in {quote(line)}")
    source, target = line.split(separator)
    for side, text in (("source", source), ("target", target)):
        if not text.strip():
            raise DataError(f"{where}: the {side} is empty in {quote(line)}; complete the pair or remove it")
    return (source, target) if separator == "\t" else (source.rstrip(" "), target.rstrip(" "))
