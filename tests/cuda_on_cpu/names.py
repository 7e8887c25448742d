"""Names of the array libraries that the code uses, read from its syntax.

``xp.linalg.norm``, ``self._cupy.cuda.Device().synchronize`` and names given to such expressions
(``runtime = cupy.cuda.runtime``) are followed; what a function returns is not, except that a class makes its instance.
"""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOTS = ("xp", "_xp", "cupy", "_cupy", "cupyx")
CALL = "()"


@dataclass(frozen=True)
class Use:
    """``library.path`` is used at a line of a file."""

    file: str
    line: int
    root: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'.'.join((self.root, *self.path)).replace('.()', '()')}"


def uses(file: Path, name: str) -> list[Use]:
    """Every use in a file, the longest path at each place."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: dict[Use, None] = {}
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))]:
        aliases: dict[str, tuple[str, ...]] = {}
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign):
                aliases.update(_aliases(node))
        found.update(dict.fromkeys(_in_scope(scope, aliases, name)))
    return [one for one in found if not any(_longer(other, one) for other in found)]


def _longer(one: Use, other: Use) -> bool:
    return one.line == other.line and len(one.path) > len(other.path) and one.path[: len(other.path)] == other.path


def _in_scope(scope: ast.AST, aliases: dict[str, tuple[str, ...]], file: str) -> Iterator[Use]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Attribute):
            chain = _chain(node, aliases)
            if chain is not None and len(chain) > 1:
                yield Use(file, node.lineno, "cupyx" if chain[0] == "cupyx" else "xp", chain[1:])


def _chain(node: ast.AST, aliases: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """A path that begins with an array library, or None."""
    if isinstance(node, ast.Name):
        if node.id in ROOTS:
            return (node.id,)
        return aliases.get(node.id)
    if isinstance(node, ast.Call):
        inner = _chain(node.func, aliases)
        return None if inner is None or len(inner) == 1 else (*inner, CALL)
    if isinstance(node, ast.Attribute):
        inner = _chain(node.value, aliases)
        if inner is not None:
            return (*inner, node.attr)
        return (node.attr,) if node.attr in ROOTS else None  # self.xp, backend.xp
    return None


def _aliases(node: ast.Assign) -> Iterator[tuple[str, tuple[str, ...]]]:
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for name, value in pairs:
            chain = _chain(value, {})
            if isinstance(name, ast.Name) and name.id not in ROOTS and chain is not None and chain[-1] != CALL:
                yield name.id, chain


def is_there(library: str, path: tuple[str, ...]) -> bool:
    """Whether an installed library has that name. What only a call could tell counts as there."""
    here: Any = importlib.import_module(library)
    for part in path:
        if part == CALL:
            if not isinstance(here, type) or here.__dictoffset__:
                return True  # a function, or a class whose instances may have more than it shows
            continue
        try:
            here = getattr(here, part)
        except AttributeError:
            try:
                here = importlib.import_module(f"{here.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        except ImportError:
            return True  # a module that is there, and needs a library of CUDA's that is not
    return True
