"""Python imports this when it starts, where `cuda_on_cpu.environment` has put this folder into PYTHONPATH."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path


def _load(name, path, **more):
    spec = importlib.util.spec_from_file_location(name, path, **more)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_here = Path(__file__).resolve().parent
# By its path: the folder that the package lies in holds much else that has no place on this process's path.
_load("cuda_on_cpu", _here.parent / "__init__.py", submodule_search_locations=[str(_here.parent)])

from cuda_on_cpu import install  # noqa: E402

install.when_cupy_is_imported()

# What Python would have imported instead.
_others = [folder for folder in sys.path if Path(folder or ".").resolve() != _here]
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _next is not None and _next.origin is not None:
    _load("sitecustomize", _next.origin)
