"""Pairs of texts from a file."""

from __future__ import annotations

import codecs
import re
from os import PathLike
from pathlib import Path

from .errors import DataError, quote

__all__ = ["read_pairs"]

_LINE_ENDS = re.compile("\r\n|\n|\r")
# Not `splitlines`: it also splits at form feeds and the like, which may stand in a text.

_EXPECTED = {
    "\t": "expected one tab between source and target",
    "_": "expected one '_' between source and target (or one tab, from line 1 on)",
}


def read_pairs(path: str | PathLike[str], columns: tuple[int, int] | None = None) -> list[tuple[str, str]]:
    """Read the pairs of `path`, one a line, in the order of the file.

    A tab in the first line makes it a file of ``source<TAB>target`` lines, whose texts are taken as
    they stand. Otherwise the lines are ``source_target``, as in the data sets of "Deep Learning
    from Scratch 2" (chapter 7), and spaces that pad a text on its right are dropped.

    Parameters
    ----------
    path : path
        A UTF-8 file, with or without a byte order mark, with LF, CRLF or CR line ends. Blank lines at its end are
        left out.
    columns : (int, int), optional
        Which columns, counted from 1 and separated by tabs, are source and target; the others are left out.

    Returns
    -------
    pairs : list of (source, target)

    Raises
    ------
    DataError
        Where the file cannot be read or a line is not a pair; the message names file and line.
    """
    if columns is not None and (min(columns) < 1 or columns[0] == columns[1]):
        raise DataError(f"columns must be two different numbers from 1 on, got {columns[0]},{columns[1]}")
    path = Path(path)
    lines = _read_lines(path)
    if columns is not None:
        return [_read_columns(line, columns, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
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
        text = content.decode()
    except UnicodeDecodeError as error:
        number = len(_LINE_ENDS.findall(content[: error.start].decode())) + 1
        byte = content[error.start]
        raise DataError(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    lines = _LINE_ENDS.split(text)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty; write one source<TAB>target pair a line")
    return lines


def _read_columns(line: str, columns: tuple[int, int], where: str) -> tuple[str, str]:
    parts = line.split("\t")
    if len(parts) < max(columns):
        raise DataError(f"{where}: expected {max(columns)} columns or more, with tabs between, got {quote(line)}")
    return _checked(parts[columns[0] - 1], parts[columns[1] - 1], line, where)


def _read_pair(line: str, separator: str, where: str) -> tuple[str, str]:
    if not line.strip():
        raise DataError(f"{where} is blank; remove it")
    if (count := line.count(separator)) != 1:
        more = "; --columns 1,2 takes the first two columns" if separator == "\t" and count > 1 else ""
        raise DataError(f"{where}: {_EXPECTED[separator]}, got {count or 'none'} in {quote(line)}{more}")
    source, _, target = line.partition(separator)
    source, target = _checked(source, target, line, where)
    return (source, target) if separator == "\t" else (source.rstrip(" "), target.rstrip(" "))


def _checked(source: str, target: str, line: str, where: str) -> tuple[str, str]:
    for side, text in (("source", source), ("target", target)):
        if not text.strip():
            raise DataError(f"{where}: the {side} is empty in {quote(line)}; complete the pair or remove it")
    return source, target
