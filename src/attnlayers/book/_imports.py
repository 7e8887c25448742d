"""Where a script of the book finds `common` and what chapters have of each other."""

import ast
import builtins
import hashlib
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy

SERVED = {
    f"common.{name}": f"attnlayers.book.{name}"
    for name in ("base_model", "config", "functions", "layers", "np", "optimizer", "time_layers", "trainer", "util")
} | {"ch08.attention_layer": "attnlayers.book.attention_layer"}
"""The book's name of a module -> the one of this library."""

UPSTREAM = {
    "ch08/attention_layer.py": "2c4055a677ebbe0d2e35300dc21bfdfb167f29750621eadc89e17cc0e656dba7",
    "common/base_model.py": "329208de4a5952e4b006dbf2a0d95f431f431d958108f00646845ba86d0a828d",
    "common/config.py": "b443bc71f4917a0bc00dba472e96962a1bd8a1de2ca816513d88105da63d3df7",
    "common/functions.py": "3612ce0333eb9d3a4f83e1f8cdfec1d2db81d2f5703cd86a0035fb258019bcb0",
    "common/layers.py": "3409cd58e1202dfd61b7e526fb449783966687ce7edb92d88ad4ab876474faaa",
    "common/np.py": "4357e3c48ab3ff6c53e8b73fe13dfedc978fa828341f04976980132f0d20a36b",
    "common/optimizer.py": "2daf665b903c6aee030e521e4d4d8bf465bef9a2f66ba83f8f6b20efdf1e908d",
    "common/time_layers.py": "a434f94584ba569dee5e8fca74ad221bb5d8a51e4cb1e500f5929de896e641d8",
    "common/trainer.py": "c9ad5254f930673b30a7942f935691ec90d1abd5320d9ef7c783d5f139c63603",
    "common/util.py": "d4e2c2a80791fe2e0d65bdceacc4ff9702665082f67722ccc03863219cdf5c27",
}
"""SHA-256 of the files of commit 842ae31 that are not used here, with line ends as on Unix."""


def own_changes(checkout: Path) -> list[str]:
    """The files of a checkout that this library stands in for and that are not the book's."""
    changed = []
    for name in UPSTREAM:
        path = checkout / name
        if path.is_file():
            content = path.read_bytes().replace(b"\r\n", b"\n")
            if hashlib.sha256(content).hexdigest() != UPSTREAM[name]:
                changed.append(name)
    return changed


class BookFinder(MetaPathFinder):
    """Serves the book's modules; in front of all other finders.

    Parameters
    ----------
    checkout : Path or None
        Without one there are the modules that this library has.
    keep : set of str
        Book names of modules that are the checkout's own.

    Attributes
    ----------
    found : list of str
        The modules that came from here, in order.
    """

    def __init__(self, checkout: Path | None, keep: set[str]) -> None:
        self.checkout = checkout
        self.keep = keep
        self.found: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Protocol of the import machinery."""
        spec = self._find(fullname, path, target)
        if spec is not None:
            self.found.append(fullname)
        return spec

    def _find(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        if fullname in SERVED and fullname not in self.keep:
            return spec_from_loader(fullname, _Alias(SERVED[fullname]), origin=SERVED[fullname])
        if fullname == "common":  # whatever else a folder of that name on the path may hold
            return _package(fullname, [] if self.checkout is None else [str(self.checkout / "common")])
        spec = PathFinder.find_spec(fullname, path, target)
        if self.checkout is None:
            chapters = {name.partition(".")[0] for name in SERVED}
            return _package(fullname, []) if spec is None and fullname in chapters else None
        if spec is None:
            return self._in_another_chapter(fullname)
        if spec.origin is not None and isinstance(spec.loader, SourceFileLoader):
            origin = Path(spec.origin).resolve()
            if origin.is_relative_to(self.checkout) and "site-packages" not in origin.parts:
                return spec_from_file_location(
                    fullname,
                    origin,
                    loader=_Mended(fullname, str(origin)),
                    submodule_search_locations=spec.submodule_search_locations,
                )
        return None  # not ours: the finders behind this one

    def _in_another_chapter(self, name: str) -> ModuleSpec | None:
        """`seq2seq`, which chapter 8 gets through a file of chapter 7, which takes its own folder to be on the path."""
        if "." in name or self.checkout is None:
            return None
        found = list(self.checkout.glob(f"ch[0-9][0-9]/{name}.py"))
        if len(found) != 1:
            return None
        return spec_from_loader(name, _Alias(f"{found[0].parent.name}.{name}"), origin=str(found[0]))


def _package(name: str, folders: list[str]) -> ModuleSpec:
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = folders
    return package


class _Alias(Loader):
    """A second name of a module: one object, whatever it is imported as."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.name)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # the import machinery has just replaced it


class _Mended(SourceFileLoader):
    """A module of the checkout; nothing is written beside it, not even byte code."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compiled(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[INT] = forgiving_int
        super().exec_module(module)


INT = "__attnlayers_int__"


def compiled(source: bytes, path: str) -> CodeType:
    """The code of a file, line by line as it stands.

    But ``int(x)`` takes an array of one value, as it did before NumPy 2.4.
    """
    return compile(mend_ints.visit(ast.parse(source, path)), path, "exec", dont_inherit=True)


class _Ints(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "int" and len(node.args) == 1 and not node.keywords:
            node.func = ast.copy_location(ast.Name(INT, ast.Load()), node.func)
        return node


mend_ints = _Ints()
"""Makes every ``int(x)`` of a syntax tree a call of `INT`."""


def forgiving_int(x: Any) -> int:
    """``int(x)``, also of an array of NumPy with one value."""
    if isinstance(x, numpy.ndarray) and x.ndim and x.size == 1:
        x = x.item()
    return builtins.int(x)
