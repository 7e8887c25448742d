"""A checkout in the book's manner: its folders, with scripts written here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_on_cpu import HOOK, environment
from support import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _python(*arguments: str, cwd: Path, bench: bool = False, **environ: str) -> "subprocess.CompletedProcess[str]":
    """How an interpreter of its own ends; `bench`: CuPy in it finds the bench's device."""
    paths = [*([HOOK] if bench else []), ROOT / "src", ROOT / "backends"]
    inherited = {key: value for key, value in (environment() if bench else os.environ).items() if key[:5] != "ATTN_"}
    env = inherited | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "MPLBACKEND": "Agg"} | environ
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def python() -> Run:
    """Runs Python itself; see `_python`."""
    return _python


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
        return _python("-m", "attnlayers.book", *arguments, cwd=cwd, **environ)

    return call


@pytest.fixture
def run_on_cuda(checkout: Path) -> Run:
    """The same with ``ATTN_GPU=1``, on the real CuPy and the bench's device."""

    def call(*arguments: str, cwd: Path = checkout) -> "subprocess.CompletedProcess[str]":
        return _python("-m", "attnlayers.book", *arguments, cwd=cwd, bench=True, ATTN_GPU="1")

    return call
