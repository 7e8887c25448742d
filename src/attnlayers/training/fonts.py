"""Fonts for the characters of a picture, whatever is installed."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PREFERRED = (
    "Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic",
    "IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic",
)  # fmt: skip
"""Fonts that are asked first: Japanese with Latin letters that go with it, as on Linux, macOS and Windows."""

BROUGHT_BY = ("matplotlib_fontja", "japanize_matplotlib")
"""Packages with a Japanese font inside, which is used from there; importing them would change rcParams."""

UNDRAWABLE = re.compile("emoji|color|last ?resort|blank", re.IGNORECASE)
"""Names of fonts whose glyphs are pictures, or stand for what is missing."""

JAPANESE = re.compile("[\u3000-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


def families(text: str) -> list[str]:
    """Names of fonts that draw a text: those of ``rcParams`` first, which stay what they are.

    Warns
    -----
    UserWarning
        Of characters that no installed font has, with what brings one.
    """
    from matplotlib import rcParams

    own = tuple(rcParams["font.family"])
    wanted = "".join(sorted({c for c in text if c.isprintable() and not c.isspace()}))
    further, missing = _beside(own, wanted)
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        remedy = "install a font that has them, such as one of Noto"
        if JAPANESE.search(missing):
            remedy = "pip install matplotlib-fontja brings one for Japanese"
        warnings.warn(f"no installed font has {shown}, so that boxes are drawn: {remedy}", stacklevel=2)
    return [*own, *further]


@lru_cache(maxsize=32)
def _beside(own: tuple[str, ...], wanted: str) -> tuple[tuple[str, ...], str]:
    """Fonts for what the own ones lack, and what none has."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    missing = wanted
    for family in own:
        missing = _lacking(font_manager.findfont(font_manager.FontProperties(family=[family])), missing)
    if missing:
        _add_unlisted()
    further = []
    names = {entry.name: entry for entry in reversed(manager.ttflist) if not UNDRAWABLE.search(entry.name)}
    for name in sorted(names, key=lambda name: (name not in PREFERRED, name)):
        if not missing:
            break
        left = _lacking(names[name].fname, missing)
        if left != missing:
            further.append(name)
            missing = left
    return tuple(further), missing


def _lacking(path: str, characters: str) -> str:
    """The characters that a font file has no glyph for."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        return "".join(c for c in characters if not font.get_char_index(ord(c)))
    except (OSError, RuntimeError):  # a broken file
        return characters


def _add_unlisted() -> None:
    """Make matplotlib know fonts that were installed after it made its list, and those of packages that bring one."""
    from matplotlib import font_manager

    paths = [Path(path) for path in font_manager.findSystemFonts()]
    for package in BROUGHT_BY:
        with suppress(ImportError, ValueError):  # there may be a stand-in for the module that says nothing of itself
            found = find_spec(package)
            if found is not None and found.origin is not None:
                paths += sorted(Path(found.origin).parent.rglob("*.tt[fc]"))
    known = {Path(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in paths:
        if path not in known:
            with suppress(OSError, RuntimeError):  # a broken file
                font_manager.fontManager.addfont(path)
