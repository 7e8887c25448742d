"""Notebooks of the documentation run to their ends, each in a kernel and a folder of its own."""

import os
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed: pip install -e '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]'")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install -e '.[dev]'")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "docs" / "notebooks").glob("*.md") if "{code-cell}" in path.read_text())
SECONDS = 300
"""Time for a cell: many times what the longest takes on one core, so that a loaded machine does not fail."""

# What the tools report of their own dependencies is theirs.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT / "backends")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        # The cell that raised is the last one that was run.
        done = [i for i, cell in enumerate(notebook.cells, 1) if cell.get("execution_count") is not None]
        raise AssertionError(f"{path.name}, cell {done[-1]}: {error}") from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.execution_count for cell in code)


def test_the_drop_in_has_the_notes_as_they_stand() -> None:
    notes = (ROOT / "tests" / "attnlayers" / "book" / "notes_cells.txt").read_text(encoding="utf-8")
    expected = [cell.strip("\n") for cell in notes.split("# In [None]:")[1:]]
    page = (ROOT / "docs" / "notebooks" / "drop-in.md").read_text(encoding="utf-8")
    sources = [cell.source for cell in jupytext.reads(page, fmt="md:myst").cells if cell.cell_type == "code"]
    assert sources[0] == "%load_ext attnlayers.book"
    assert sources[1 : 1 + len(expected)] == expected


def test_every_notebook_is_listed() -> None:
    index = (ROOT / "docs" / "notebooks" / "index.md").read_text(encoding="utf-8")
    listed = index.partition(":hidden:")[2].partition("```")[0].split()
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]
    assert all(f"({path.name})" in index for path in NOTEBOOKS)
