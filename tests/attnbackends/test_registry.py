"""Which backends there are, which can be used here, and which one an array belongs to."""

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from support import Library

import attnbackends
from attnbackends import Availability, Backend, BackendError, available_backends, backend_of, get_backend
from attnbackends._cpu.backend import NumpyBackend
from attnbackends._cuda.backend import CupyBackend
from attnbackends._torch import TorchBackend
from attnbackends._ufunc import UfuncBackend

PUBLIC = [name for name, _ in inspect.getmembers(Backend, inspect.isfunction) if not name.startswith("_")]


def test_public_names() -> None:
    assert sorted(attnbackends.__all__) == [
        "Array",
        "AttentionCall",
        "Availability",
        "Backend",
        "BackendError",
        "CrossEntropyCall",
        "DType",
        "GPU",
        "LSTMCall",
        "Machine",
        "OwnAttention",
        "OwnCrossEntropy",
        "OwnLSTM",
        "PackedKeys",
        "REASON",
        "Uniform",
        "available_backends",
        "backend",
        "backend_of",
        "check_ids",
        "current_share",
        "float_bits",
        "float_dtype",
        "get_backend",
        "keep_freed_memory",
        "quiet",
        "share_of_batch",
        "xp",
    ]
    assert all(hasattr(attnbackends, name) for name in attnbackends.__all__)


@pytest.mark.parametrize("kind", [NumpyBackend, CupyBackend, TorchBackend, UfuncBackend])
@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_are_those_of_the_base(kind: type[Backend], name: str) -> None:
    assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(Backend, name))


def test_signatures_of_every_backend_that_is_here(library: Library) -> None:
    kind = type(library.backend)
    for name in PUBLIC:
        assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(Backend, name)), name
    assert isinstance(library.backend.on_host, bool)


def test_backends_add_nothing_public_that_a_layer_could_come_to_need() -> None:
    for kind in (NumpyBackend, CupyBackend, TorchBackend, UfuncBackend):
        public = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        assert public == set(PUBLIC)


def test_backend_of_follows_the_data(library: Library) -> None:
    one, two = library.array([1.0]), library.array([[2, 3]])
    assert backend_of(one) is library.backend
    assert backend_of(one, two, one) is library.backend
    assert backend_of(q=one, k=two) is library.backend
    assert backend_of(one, k=two) is get_backend(library.backend.name)


class Labelled(np.ndarray):
    """A subclass that some other package may define."""


def test_backend_of_subclasses_is_that_of_their_base() -> None:
    assert backend_of(np.zeros(3).view(Labelled)) is get_backend("numpy")
    assert backend_of(np.float32(1)) is get_backend("numpy")


@pytest.mark.parametrize("value", [[1.0, 2.0], (1,), 3, 0.5, "q", None, {}, range(3)])
def test_what_is_no_array_is_refused_with_its_name(value: Any) -> None:
    expected = rf"^`k` must be an array of .*cupy.* or .*, got {type(value).__name__}: make one with attnbackends\."
    with pytest.raises(TypeError, match=expected):
        backend_of(q=np.zeros(1), k=value)
    with pytest.raises(TypeError, match=rf"^`argument 2` must be an array of .*, got {type(value).__name__}: "):
        backend_of(np.zeros(1), value)


def test_backend_of_nothing() -> None:
    with pytest.raises(TypeError, match=r"^backend_of needs at least one array$"):
        backend_of()


@pytest.mark.parametrize("name", ["array_api_strict", "torch", "cupy"])
def test_a_mixture_of_libraries_is_refused_with_every_name(name: str) -> None:
    other = library_of(name).array([1.0])
    expected = (
        "the arrays of one call must live in one place: `q` is a numpy array on cpu, "
        f"`k` is a {name} array on {other.device}, "
        "`v` is a numpy array on cpu; move them with asarray"
    )
    with pytest.raises(BackendError, match=f"^{re.escape(expected)}$"):
        backend_of(q=np.zeros(1), k=other, v=np.zeros(1))
    with pytest.raises(BackendError, match="`argument 1` is a numpy array on cpu, `argument 2` is"):
        backend_of(np.zeros(1), other)


def test_a_mixture_of_devices_is_refused() -> None:
    xp = library_of("array_api_strict").xp
    here, there = xp.zeros(1), xp.zeros(1, device=xp.Device("device1"))
    assert backend_of(there, there).name == "array_api_strict"
    with pytest.raises(BackendError, match=r"`a` is a array_api_strict array on .*CPU.*, `b` is .* on .*device1"):
        backend_of(a=here, b=there)


def test_get_backend_makes_each_once(library: Library) -> None:
    name = library.backend.name
    assert get_backend(name) is library.backend
    assert get_backend(name).name == name


def test_get_backend_of_an_unknown_name() -> None:
    with pytest.raises(BackendError, match=r"^there is no backend 'jax'; installed are .*cupy, .*numpy"):
        get_backend("jax")


def test_copies_of_a_backend_are_the_backend(library: Library) -> None:
    backend = library.backend
    assert copy.copy(backend) is backend
    assert copy.deepcopy({"b": [backend]})["b"][0] is backend
    assert pickle.loads(pickle.dumps(backend)) is backend


def test_available_backends_says_what_or_why() -> None:
    found = available_backends()
    assert found["numpy"] == Availability(
        True, f"numpy {np.__version__} on {get_backend('numpy').machine.describe()['device']}"
    )
    assert not found["broken"].usable
    assert found["broken"].detail.endswith("OSError: libfast.so.3: cannot open shared object file")
    if not found["cupy"].usable:
        assert "nvidia-smi" in found["cupy"].detail or "install attnlayers[cuda12]" in found["cupy"].detail


def test_description(library: Library) -> None:
    described = library.backend.machine.describe()
    assert {"library", "device"} <= set(described)
    assert described["library"].startswith(library.backend.name)
    assert all(isinstance(text, str) and text for text in described.values())
    assert repr(library.backend) == f"<{type(library.backend).__name__}: {', '.join(described.values())}>"
