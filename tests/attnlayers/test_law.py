"""The law of the house: what is written against `xp` lives in src, what is written for one library in backends.

They meet in operations that a backend offers, and in three whole ones that it may take or decline, `attention`, `lstm`
and `cross_entropy`.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

from attnbackends import Backend
from attnlayers import functional

SRC, BACKENDS = ROOT / "src" / "attnlayers", ROOT / "backends" / "attnbackends"
AGAINST_XP = ("functional", "layers", "models", "training", "data")
"""Parts of src that compute. The others are about libraries: the benchmarks, the book's switch, the command."""

LIBRARIES = {"cupy", "torch", "jax", "array_api_strict", "array_api_compat"}
MEMBERS = {name for name, _ in inspect.getmembers(Backend) if not name.startswith("_")} | {"name", "xp"}
FILES = [path for part in AGAINST_XP for path in sorted((SRC / part).rglob("*.py"))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """The first part of each module that is imported, of relative ones the empty string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else (node.module or "").partition(".")[0]


def asked_of_backends(tree: ast.AST) -> set[str]:
    """What is read off anything that is called `backend`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "id", "") == "backend" or getattr(node.value, "attr", "") == "backend")
    }


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_what_computes_knows_no_library(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not LIBRARIES & set(imported(tree))
    asked = asked_of_backends(tree)
    assert asked <= MEMBERS, "a backend is asked for what is not its interface"
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not LIBRARIES & named
    assert "name" not in asked or path.parent.name == "training", "a run says which library it was made with"


def test_the_interface_of_a_backend_has_no_constants() -> None:
    """What cuts work is asked for with the sizes of the work: `chunks`, `block_of_scores`."""
    found = {name for name in MEMBERS if isinstance(getattr(Backend, name, None), (int, float, tuple, dict))}
    assert not found


def test_three_whole_operations_may_be_declined() -> None:
    """Beside them, the softmax of a row is the only maths that backends and functional both have a name for."""
    shared = MEMBERS & set(functional.__all__)
    assert shared == {"attention", "cross_entropy", "lstm", "softmax"}
    backend = type("Any", (Backend,), {})()
    assert backend.attention(None) is None
    assert backend.lstm(None) is None
    assert backend.cross_entropy(None) is None


@pytest.mark.parametrize("path", sorted(BACKENDS.rglob("*.py")), ids=relative)
def test_backends_know_nothing_of_layers_and_each_its_own_library(path: Path) -> None:
    found = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert "attnlayers" not in found
    room = path.relative_to(BACKENDS).parts[0]
    assert "cupy" not in found or room == "_cuda"
    assert not {"torch", "array_api_compat"} & found or room == "_torch.py"
