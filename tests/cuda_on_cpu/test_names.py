"""Every name of CuPy that the code uses is one that the installed CuPy has; `xp`'s names are those of every library."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support import ROOT

from attnbackends import Backend
from cuda_on_cpu import environment, unavailable
from cuda_on_cpu.names import CALL, Use, uses

EVERY = ("cupy", "numpy", "array_api_strict")
ONLY = {
    "src/attnlayers/book": ("cupy", "numpy"),
    "src/attnlayers/bench/memory.py": ("cupy",),
    "src/attnlayers/bench": ("cupy", "numpy"),
    "backends/attnbackends/_ufunc.py": ("cupy", "numpy"),
    **dict.fromkeys((f"backends/attnbackends/{name}.py" for name in ("_numpy", "_torch")), ()),
    **dict.fromkeys(
        [f"backends/attnbackends/_{name}" for name in ("cuda", "cupy", "cublas", "cudnn", "half_attention", "ids")],
        ("cupy",),
    ),
}
"""Files, by how their paths begin, whose `xp` is not any library."""

NEVER_MET = {
    "backends/attnbackends/_base.py": ("vecdot", "cupy"),  # CuPy's backend has its own
    "src/attnlayers/functional/_blocks/core.py": ("exp2", "array_api_strict"),  # where NumPy is the library
}
"""Names in a file that a library lacks, and where it cannot come to that."""

CHECK = """
import json, sys
from cuda_on_cpu.names import is_there
asked = json.load(sys.stdin)
json.dump([is_there(library, tuple(path)) for library, path in asked], sys.stdout)
"""


def files() -> list[str]:
    return [str(path.relative_to(ROOT)) for root in ("src", "backends") for path in sorted((ROOT / root).rglob("*.py"))]


def libraries_of(file: str) -> tuple[str, ...]:
    return next((libraries for start, libraries in ONLY.items() if file.startswith(start)), EVERY)


def missing(asked: list[tuple[str, Use]]) -> list[str]:
    """What a process that may import CuPy finds missing: on the bench where there is one, for then cuBLAS loads."""
    env = environment() if unavailable() is None else dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join([env.get("PYTHONPATH", ""), str(ROOT / "tests")])
    questions = json.dumps([("cupyx" if use.root == "cupyx" else library, use.path) for library, use in asked])
    done = subprocess.run(
        [sys.executable, "-c", CHECK], input=questions, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    return [f"{use}: not in {library}" for (library, use), found in zip(asked, there, strict=True) if not found]


@pytest.mark.parametrize("library", EVERY)
def test_every_name_is_there(library: str) -> None:
    pytest.importorskip(library)
    asked = [
        (library, use)
        for file in files()
        if library in libraries_of(file)
        for use in uses(ROOT / file, file)
        if NEVER_MET.get(file) != (".".join(use.path), library)
    ]
    assert len(asked) > 100
    assert missing(asked) == []


def test_cupy_overrides_what_it_could_not_run() -> None:
    from attnbackends._registry import _BUILT_IN

    backend = metadata.EntryPoint("cupy", _BUILT_IN["cupy"], "").load()
    assert backend.vecdot is not Backend.vecdot


def test_a_name_that_cupy_has_not_is_found(tmp_path: Path) -> None:
    pytest.importorskip("cupy")
    file = tmp_path / "code.py"
    file.write_text(
        "def dot(xp, a, b):\n"
        "    return xp.vecdot(a, b)\n"
        "class Device:\n"
        "    def wait(self):\n"
        "        runtime = self._cupy.cuda.runtime\n"
        "        runtime.getDevice()\n"
        "        runtime.waitForIt()\n"
        "        self._cupy.cuda.Device().synchronize()\n"
        "        self._cupy.cuda.Device(0).hurry()\n"
    )
    found = uses(file, "code.py")
    assert Use("code.py", 8, "xp", ("cuda", "Device", CALL, "synchronize")) in found
    assert sorted(missing([("cupy", use) for use in found])) == [
        "code.py:2: xp.vecdot: not in cupy",
        "code.py:7: xp.cuda.runtime.waitForIt: not in cupy",
        "code.py:9: xp.cuda.Device().hurry: not in cupy",
    ]
