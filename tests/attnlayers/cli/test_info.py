"""`attnlayers info`: what is in use and why, and what cannot be used and why not."""

import platform
import re
from typing import Any

import numpy as np
import pytest

from attnbackends import available_backends

NO_TORCH = "import sys; sys.modules['torch'] = None"  # which takes seconds to import
NO_CUPY = f"{NO_TORCH}; sys.modules['cupy'] = None"


def rows(text: str) -> dict[str, str]:
    """What stands behind each heading; a line that begins with spaces goes on with the one above."""
    found: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if not line.startswith(" ") and line.strip():
            heading, _, line = line.partition(" ")
        found[heading] = f"{found.get(heading, '')} {line.strip()}".strip()
    return found


def test_numpy_because_nothing_else_was_asked_for(info: Any) -> None:
    assert info.returncode == 0
    assert info.stderr == ""
    found = rows(info.stdout)
    assert found["backend"] == "numpy, because ATTN_GPU is not set"
    assert found["library"] == f"numpy {np.__version__}"
    assert found["device"].startswith("CPU")
    assert int(found["threads"]) >= 1
    assert found["BLAS"]
    assert f"Python {platform.python_version()}" in found["attnlayers"]
    assert found["torch"].startswith("cannot be used: PyTorch cannot be imported")
    assert found["cupy"].startswith("cannot be used: CuPy cannot be imported")
    assert "numpy" not in found, "it is told above"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"ATTN_BACKEND": "numpy"}, "ATTN_BACKEND=numpy"),
        ({"ATTN_GPU": "auto"}, "ATTN_GPU=auto"),
    ],
)
def test_the_reason_and_the_threads(attnlayers: Any, environ: dict[str, str], reason: str) -> None:
    found = rows(attnlayers("info", before=NO_CUPY, ATTN_THREADS="3", **environ).stdout)
    assert found["backend"] == f"numpy, because {reason}"
    assert found["threads"] == "3"


def test_another_backend(attnlayers: Any) -> None:
    found = rows(attnlayers("info", before=NO_TORCH, ATTN_BACKEND="array_api_strict").stdout)
    assert found["backend"] == "array_api_strict, because ATTN_BACKEND=array_api_strict"
    assert found["library"].startswith("array_api_strict ")
    assert found["numpy"].startswith(f"can be used: numpy {np.__version__} on CPU")
    assert "array_api_strict" not in found


def test_a_device_that_is_asked_for_and_does_not_answer(attnlayers: Any) -> None:
    cupy = available_backends()["cupy"]
    if cupy.usable:
        pytest.skip(f"a device answers: {cupy.detail}")
    ended = attnlayers("info", before=NO_TORCH, ATTN_GPU="1")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    found = rows(ended.stdout)
    assert found["backend"] == f"none: ATTN_GPU=1: {cupy.detail}"
    assert found["cupy"] == f"cannot be used: {cupy.detail}"
    assert found["numpy"].startswith(f"can be used: numpy {np.__version__} on CPU")
    assert found["torch"].startswith("cannot be used")


def test_what_to_install_is_shown_to_its_end(attnlayers: Any) -> None:
    ended = attnlayers("info", before=NO_CUPY, ATTN_GPU="1")
    assert ended.returncode == 1
    text = " ".join(ended.stdout.split())
    assert text.count("install attnlayers[cuda12] or attnlayers[cuda13], after the CUDA version") == 2


@pytest.mark.parametrize(
    "environ",
    [
        {"ATTN_GPU": "maybe"},
        {"ATTN_BACKEND": "nympu"},
        {"ATTN_THREADS": "x"},
    ],
)
def test_settings_that_make_no_sense(attnlayers: Any, environ: dict[str, str]) -> None:
    ended = attnlayers("info", before=NO_CUPY, **environ)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    found = rows(ended.stdout)
    assert found["backend"].startswith("none: ")
    assert next(iter(environ)) in found["backend"] or "nympu" in found["backend"]
    assert {"numpy", "cupy", "torch"} <= found.keys()


def test_mpi(info: Any) -> None:
    """Its library is loaded and not started."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    assert re.fullmatch(r"\S.* [\d.]+, by mpi4py [\d.]+", rows(info.stdout)["MPI"])


def test_mpi_that_is_missing(attnlayers: Any) -> None:
    ended = attnlayers("info", before=f"{NO_CUPY}; sys.modules['mpi4py'] = None")
    assert ended.returncode == 0
    said = rows(ended.stdout)["MPI"]
    assert said.startswith("not used, mpi4py cannot be imported (")
    assert said.endswith("): pip install 'attnlayers[mpi]'")


def test_a_plug_in_that_fails(info: Any) -> None:
    found = rows(info.stdout)
    broken = [text for text in found.values() if "libfast.so.3: cannot open shared object file" in text]
    assert broken, found
    assert broken[0].startswith("cannot be used: ")


def test_a_row_is_a_line_for_other_programs(info: Any) -> None:
    assert not [line for line in info.stdout.splitlines() if line.startswith(" ")]
