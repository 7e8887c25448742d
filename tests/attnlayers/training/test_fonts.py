"""Fonts of pictures: what is installed is found, what is not is said, and nothing of the user's is changed."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from attnlayers.training import fonts
from attnlayers.training.fonts import families


def font_with(path: Path, name: str, characters: str) -> Path:
    """A font whose glyphs are squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"g{ord(c)}" for c in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"g{ord(c)}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture(autouse=True)
def only_matplotlibs_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine that has no further font."""
    own = Path(matplotlib.get_data_path())
    listed = [entry for entry in font_manager.fontManager.ttflist if Path(entry.fname).is_relative_to(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    fonts._beside.cache_clear()
    yield
    fonts._beside.cache_clear()


def test_what_the_users_fonts_have_needs_no_other() -> None:
    assert families("abcé\n ") == matplotlib.rcParams["font.family"]


def test_a_font_that_has_the_glyphs_is_found(tmp_path: Path) -> None:
    for name, characters in (("First", "日"), ("Second", "日本"), ("Third", "본")):
        font_manager.fontManager.addfont(font_with(tmp_path / f"{name}.ttf", name, characters))
    before = dict(dict.items(matplotlib.rcParams))
    assert families("a日本") == [*matplotlib.rcParams["font.family"], "First", "Second"]
    assert families("본") == [*matplotlib.rcParams["font.family"], "Third"]
    assert dict(dict.items(matplotlib.rcParams)) == before


def test_a_font_that_was_installed_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(font_with(tmp_path / "new.otf", "New", "日")), str(tmp_path / "broken.ttf")]
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    assert families("日") == [*matplotlib.rcParams["font.family"], "New"]


def test_what_no_font_has_is_said_with_a_remedy() -> None:
    said = "^no installed font has {}, so that boxes are drawn: {}"
    with pytest.warns(
        UserWarning, match=said.format("京, 東", "pip install matplotlib-fontja brings one for Japanese")
    ):
        assert families("東京") == matplotlib.rcParams["font.family"]
    with pytest.warns(UserWarning, match=said.format("한", "install a font that has them, such as one of Noto")):
        families("한")
    with pytest.warns(UserWarning, match=", 万, 丈, 三 and 4 more, so that"):
        families("".join(map(chr, range(0x4E00, 0x4E0E))))


def test_the_font_of_the_package_is_used_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "matplotlib_fontja"
    (package / "fonts").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it changes rcParams')")
    font_with(package / "fonts" / "ja.ttf", "Packaged", "日本")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert families("日本") == [*matplotlib.rcParams["font.family"], "Packaged"]
    assert "matplotlib_fontja" not in sys.modules


def test_fonts_of_pictures_and_broken_files_are_left_out(tmp_path: Path) -> None:
    font_manager.fontManager.addfont(font_with(tmp_path / "a.ttf", "Noto Color Emoji", "日"))
    font_manager.fontManager.addfont(font_with(tmp_path / "b.ttf", "Broken", "日"))
    (tmp_path / "b.ttf").write_bytes(b"no font any more")
    with pytest.warns(UserWarning, match="no installed font has 日"):
        families("日")


def test_the_users_family_comes_first(tmp_path: Path) -> None:
    font_manager.fontManager.addfont(font_with(tmp_path / "a.ttf", "Mine", "日ab"))
    with matplotlib.rc_context({"font.family": ["Mine"]}):
        assert families("日ab") == ["Mine"]


@pytest.mark.parametrize("name", fonts.BROUGHT_BY)
def test_a_package_that_is_not_there_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(UserWarning, match="no installed font"):
        families("日")
