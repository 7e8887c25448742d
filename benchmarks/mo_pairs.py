"""Pairs of sentences out of the message catalogues of programs: ``source<TAB>target`` lines on standard output.

``python -m benchmarks.mo_pairs fr FOLDER…`` reads every ``fr/LC_MESSAGES/*.mo`` below the folders. docs/training.md has
the commands that bring such folders from Debian packages.
"""

from __future__ import annotations

import gettext
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def pairs_of(catalogue: Path) -> Iterator[tuple[str, str]]:
    """Messages of one line that have a translation; of plural forms the first."""
    with catalogue.open("rb") as file:
        translations = gettext.GNUTranslations(file)
    for key, target in translations._catalog.items():  # type: ignore[attr-defined]  # the class only looks up
        source, form = key if isinstance(key, tuple) else (key, 0)
        source = source.rpartition("\x04")[2]  # before it stands the context
        if form == 0 and all(text.strip() and text.isprintable() for text in (source, target)) and source != target:
            yield source, target


def read(language: str, folders: Iterable[Path]) -> list[tuple[str, str]]:
    """Each pair of all catalogues once, in an order that does not depend on the file system."""
    found: dict[tuple[str, str], None] = {}
    for folder in folders:
        for catalogue in sorted(folder.rglob(f"{language}/LC_MESSAGES/*.mo")):
            found |= dict.fromkeys(pairs_of(catalogue))
    return [*found]


if __name__ == "__main__":
    language, *folders = sys.argv[1:]
    for source, target in read(language, map(Path, folders)):
        print(source, target, sep="\t")
