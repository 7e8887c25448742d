"""Sources of the notebooks. `make docs` executes them, and fails with the name of the page and its cell."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")) if path.stem != "index"}


def test_every_page_is_a_notebook() -> None:
    assert PAGES
    for path, text in PAGES.items():
        assert text.startswith("---\nfile_format: mystnb\nkernelspec:\n  name: python3\n"), path
        assert len(CELL.findall(text)) == text.count("{code-cell}") > 1, path


def test_every_page_is_listed() -> None:
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    listed = index.partition(":hidden:")[2].partition("```")[0].split()
    assert sorted(listed) == sorted(path.stem for path in PAGES)
    assert all(f"]({path.name})" in index for path in PAGES)


def test_the_drop_in_has_the_notes_as_they_stand() -> None:
    notes = (ROOT / "tests" / "attnlayers" / "book" / "notes_cells.txt").read_text(encoding="utf-8")
    expected = [cell.strip("\n") for cell in notes.split("# In [None]:")[1:]]
    cells = [cell.strip("\n") for cell in CELL.findall(PAGES[FOLDER / "drop-in.md"])]
    assert cells[0] == "%load_ext attnlayers.book"
    assert cells[1 : 1 + len(expected)] == expected


def test_both_languages_run_the_same_code() -> None:
    def code(name: str) -> list[str]:
        """Without comments and labels, which are prose."""
        cells = "".join(CELL.findall(PAGES[FOLDER / name]))
        return re.sub(r'(^|  )# .*$|"[^"\n]*"', "", cells, flags=re.MULTILINE).split()

    assert code("attention-by-hand.ja.md") == code("attention-by-hand.md")
