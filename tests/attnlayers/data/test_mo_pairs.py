"""Pairs out of message catalogues, by the script that the docs use."""

import struct
import subprocess
import sys
from pathlib import Path

from support import ROOT


def write_catalogue(path: Path, messages: dict[str, str]) -> None:
    """A GNU .mo file: header, two tables of (length, place), and the texts, each with a 0 at its end."""
    path.parent.mkdir(parents=True)
    entries = sorted((key.encode(), value.encode()) for key, value in ({"": CHARSET} | messages).items())
    first = 28 + 16 * len(entries)
    data, tables = b"", ([], [])
    for side, table in enumerate(tables):
        for entry in entries:
            table.append((len(entry[side]), first + len(data)))
            data += entry[side] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(entries), 28, 28 + 8 * len(entries), 0, 0)
    path.write_bytes(header + b"".join(struct.pack("<2I", *pair) for table in tables for pair in table) + data)


CHARSET = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n > 1);\n"
MESSAGES = {
    "File": "Fichier",
    "menu\x04Open": "Ouvrir",
    "one file\0%d files": "un fichier\0%d fichiers",
    "two\nlines": "deux\nlignes",
    "OK": "OK",
    "empty": "",
    "a\ttab": "une tabulation",
}


def test_messages_of_one_line(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "one" / "fr" / "LC_MESSAGES" / "a.mo", MESSAGES)
    write_catalogue(tmp_path / "two" / "share" / "fr" / "LC_MESSAGES" / "b.mo", {"File": "Fichier", "Quit": "Quitter"})
    write_catalogue(tmp_path / "two" / "share" / "de" / "LC_MESSAGES" / "b.mo", {"File": "Datei"})
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.mo_pairs", "fr", str(tmp_path / "one"), str(tmp_path / "two")],
        capture_output=True, check=True, cwd=ROOT, encoding="utf-8",
    )  # fmt: skip
    assert sorted(found.stdout.splitlines()) == [
        "File\tFichier",
        "Open\tOuvrir",
        "Quit\tQuitter",
        "one file\tun fichier",
    ]
