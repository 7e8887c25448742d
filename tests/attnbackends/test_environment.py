"""What the environment does, in fresh interpreters: the real thing."""

import importlib.util

import pytest
from support import output_of, run_python

from attnbackends import available_backends

SHOW = "import attnbackends as a; print(a.backend.name, a.xp.__name__, a.GPU, a.REASON)"
NO_CUPY = "import sys; sys.modules['cupy'] = None\n"

CUPY_INSTALLED = importlib.util.find_spec("cupy") is not None
CUPY_USABLE = available_backends()["cupy"].usable
without_cupy = pytest.mark.skipif(CUPY_INSTALLED, reason="CuPy is installed")
with_cupy_but_no_device = pytest.mark.skipif(
    not CUPY_INSTALLED or CUPY_USABLE, reason="needs CuPy installed and no device that answers"
)
with_torch = pytest.mark.skipif(
    not ("torch" in available_backends() and available_backends()["torch"].usable), reason="needs PyTorch"
)


def error_of(code: str, **environ: str) -> str:
    """The last line of the traceback: one error, and nothing printed before it."""
    ended = run_python(code, **environ)
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "numpy numpy False ATTN_GPU is not set"),
        ({"ATTN_GPU": ""}, "numpy numpy False ATTN_GPU is not set"),
        ({"ATTN_GPU": "0"}, "numpy numpy False ATTN_GPU=0"),
        ({"ATTN_GPU": "Off"}, "numpy numpy False ATTN_GPU=off"),
        ({"ATTN_BACKEND": "numpy"}, "numpy numpy False ATTN_BACKEND=numpy"),
        ({"ATTN_BACKEND": "numpy", "ATTN_GPU": "no"}, "numpy numpy False ATTN_BACKEND=numpy"),
    ],
)
def test_numpy(environ: dict[str, str], expected: str) -> None:
    assert output_of(SHOW, **environ) == expected


def test_a_plugin_is_found_through_its_entry_point() -> None:
    pytest.importorskip("array_api_strict")
    expected = "array_api_strict array_api_strict False ATTN_BACKEND=array_api_strict"
    assert output_of(SHOW, ATTN_BACKEND="array_api_strict") == expected


@with_torch
def test_torch() -> None:
    expected = "torch array_api_compat.torch False ATTN_BACKEND=torch"
    assert output_of(SHOW, ATTN_BACKEND="torch") == expected


@with_torch
def test_torch_on_a_device_that_is_not_there() -> None:
    error = error_of(SHOW, ATTN_BACKEND="torch", ATTN_TORCH_DEVICE="cuda:77")
    assert error.startswith("attnbackends._errors.BackendError: ATTN_BACKEND=torch: ATTN_TORCH_DEVICE=cuda:77")


@pytest.mark.skipif(not CUPY_USABLE, reason=f"cupy: {available_backends()['cupy'].detail}")
@pytest.mark.parametrize("environ", [{"ATTN_GPU": "1"}, {"ATTN_GPU": "auto"}, {"ATTN_BACKEND": "cupy"}])
def test_cupy(environ: dict[str, str]) -> None:
    assert output_of(SHOW, **environ).startswith("cupy cupy True ATTN_")


@pytest.mark.parametrize("setting", [{"ATTN_GPU": "1"}, {"ATTN_BACKEND": "cupy"}])
def test_cupy_that_is_hidden(setting: dict[str, str]) -> None:
    error = error_of(NO_CUPY + SHOW, **setting)
    [(key, value)] = setting.items()
    assert error.startswith(f"attnbackends._errors.BackendError: {key}={value}: CuPy cannot be imported (")
    assert "None in sys.modules" in error
    assert "install attnlayers[cuda12] or attnlayers[cuda13]" in error


@without_cupy
def test_cupy_that_is_not_installed() -> None:
    error = error_of(SHOW, ATTN_GPU="1")
    assert "ATTN_GPU=1: CuPy cannot be imported (No module named 'cupy'): install attnlayers[cuda12]" in error


@with_cupy_but_no_device
def test_cupy_without_a_driver_or_device() -> None:
    error = error_of(SHOW, ATTN_GPU="1")
    assert error.startswith("attnbackends._errors.BackendError: ATTN_GPU=1: CuPy ")
    assert "cudaErrorInsufficientDriver" in error or "cudaErrorNoDevice" in error or "has no device" in error
    assert "nvidia-smi" in error
    assert error.endswith("or unset ATTN_GPU to use NumPy")


@with_cupy_but_no_device
def test_the_cause_of_a_missing_driver_is_chained() -> None:
    code = "try:\n    import attnbackends\nexcept RuntimeError as e:\n    print(type(e.__cause__).__name__)"
    assert output_of(code, ATTN_GPU="1") == "CUDARuntimeError"


@pytest.mark.parametrize("hidden", [True, pytest.param(False, marks=with_cupy_but_no_device)])
def test_auto_falls_back_to_numpy_and_says_so_at_info(hidden: bool) -> None:
    log = "import logging, sys; logging.basicConfig(level=20, stream=sys.stdout, format='%(levelname)s %(message)s')\n"
    first, second = output_of((NO_CUPY if hidden else "") + log + SHOW, ATTN_GPU="auto").splitlines()
    cause = "CuPy cannot be imported (" if hidden else "CuPy 1"
    assert first.startswith(f"INFO ATTN_GPU=auto: using numpy, because {cause}")
    assert second == "numpy numpy False ATTN_GPU=auto"


def test_auto_is_silent_by_default() -> None:
    assert output_of(NO_CUPY + SHOW, ATTN_GPU="auto") == "numpy numpy False ATTN_GPU=auto"


def test_maybe_is_no_answer() -> None:
    assert error_of(SHOW, ATTN_GPU="maybe").endswith(
        "ATTN_GPU must be one of 1, true, yes, on (CuPy), 0, false, no, off or unset (NumPy), or auto, got 'maybe'"
    )


def test_settings_that_disagree() -> None:
    assert error_of(SHOW, ATTN_GPU="1", ATTN_BACKEND="numpy").endswith(
        "BackendError: ATTN_GPU=1 asks for cupy and ATTN_BACKEND=numpy for numpy: unset one of the two"
    )


def test_an_unknown_backend_lists_those_that_are_installed() -> None:
    error = error_of(SHOW, ATTN_BACKEND="jax")
    _, listed = error.split("ATTN_BACKEND=jax: there is no backend 'jax'; installed are ")
    names = listed.split(", ")
    assert {"numpy", "cupy", "array_api_strict", "broken"} <= set(names)
    assert names == sorted(names)


def test_a_plugin_whose_import_fails() -> None:
    assert error_of(SHOW, ATTN_BACKEND="broken").endswith(
        "BackendError: ATTN_BACKEND=broken: the backend 'broken' (broken_backend:Backend) cannot be loaded: "
        "OSError: libfast.so.3: cannot open shared object file"
    )


@pytest.mark.parametrize("value", ["0", "many"])
def test_threads_that_are_no_number(value: str) -> None:
    assert error_of(SHOW, ATTN_THREADS=value).endswith(
        f"ATTN_THREADS must be a positive integer or unset, got {value!r}"
    )


def test_threads_are_as_many_as_asked_for() -> None:
    code = "from attnbackends import backend; print(backend.workers.count, backend.machine.describe()['threads'])"
    assert output_of(code, ATTN_THREADS="7") == "7 7"


def test_the_environment_is_read_once() -> None:
    code = "import os, attnbackends; os.environ['ATTN_GPU'] = 'maybe'; import attnbackends as a; print(a.backend.name)"
    assert output_of(code) == "numpy"
