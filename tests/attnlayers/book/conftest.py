"""A checkout in the book's manner: its folders, with scripts written here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """`common` whose modules must not be used, and chapters to put scripts in."""
    for folder in ("common", "ch06", "ch07", "ch08", "dataset"):
        (tmp_path / folder).mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    (tmp_path / "common" / "np.py").write_text("raise ImportError('the checkout has its own np')\n")
    (tmp_path / "dataset" / "__init__.py").write_text("")
    return tmp_path


@pytest.fixture
def run(checkout: Path) -> Run:
    """Runs a script of the checkout in an interpreter of its own."""

    def call(*arguments: str, cwd: Path = checkout, **environ: str) -> "subprocess.CompletedProcess[str]":
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ATTN_")}
        paths = [environ.pop("FIRST", ""), str(ROOT / "src"), str(ROOT / "backends")]
        env = inherited | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MPLBACKEND": "Agg"} | environ
        command = [sys.executable, "-m", "attnlayers.book", *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)

    return call
