"""Plans of attention on CUDA: found again by calls of their kind and by no others, and never too many."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends._cuda.compiled import Kernels
from attnbackends._cuda.plans import PLANS, CudaAttention
from attnbackends._cuda.recent import Recent
from attnlayers import functional as F

on_cupy = pytest.mark.parametrize("library", ["cupy"], indirect=True)

SHAPES = (2, 5, 8), (2, 7, 8), (2, 7, 4)
"""q, k and v."""


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


def bits(arrays: Any) -> list[bytes]:
    return [x.get().tobytes() for x in arrays]


def both(arrays: list[Any], **options: Any) -> list[bytes]:
    """Output and gradients."""
    q, k, v = arrays
    out, saved = F.attention(q, k, v, **options)
    return bits((out, *F.attention_backward(saved, out)))


@pytest.fixture
def made(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were made ready since, by name: a plan makes two."""
    kernels, names = library.backend._kernels, []
    ready = kernels.ready

    def noting(name: str, *arguments: Any, **options: Any) -> Callable[..., None]:
        names.append(name)
        return ready(name, *arguments, **options)

    monkeypatch.setattr(kernels, "ready", noting)
    monkeypatch.setattr(library.backend, "_attention_kernels", CudaAttention(kernels))
    return names


SAME: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": (2, 1), "query_start": 1},
    "lengths": {"key_lengths": [7, 3]},
    "starts": {"causal": True, "query_start": [1, 2]},
}


@on_cupy
@pytest.mark.parametrize("name", SAME)
def test_a_call_that_comes_again_makes_nothing_ready(library: Library, made: list[str], name: str) -> None:
    results = [both([library.array(draw(*shape)) for shape in SHAPES], **SAME[name]) for _ in range(3)]
    assert made == ["attention_small", "attention_small_backward"]
    assert results[0] == results[1] == results[2]


@on_cupy
def test_values_of_each_entry_share_a_plan(library: Library, made: list[str]) -> None:
    arrays = [library.array(draw(*shape)) for shape in SHAPES]
    for lengths in ([7, 3], [1, 7], [0, 0]):
        hidden = np.arange(7) < np.array(lengths)[:, None]
        by_mask = both(arrays, mask=library.array(hidden[:, None, :]))
        assert both(arrays, key_lengths=lengths) == by_mask
    assert len(made) == 4, "one plan for lengths, one for masks"


def wider(library: Library, x: np.ndarray) -> Any:
    """The same numbers with a gap after each row."""
    return library.array(np.concatenate((x, x), axis=2))[..., : x.shape[2]]


def turned(library: Library, x: np.ndarray) -> Any:
    """The same numbers, heads and time interchanged in memory."""
    return library.array(np.ascontiguousarray(x.swapaxes(0, 1))).swapaxes(0, 1)


@on_cupy
def test_other_strides_have_a_plan_of_their_own(library: Library, made: list[str]) -> None:
    arrays = [draw(*shape) for shape in SHAPES]
    right = both([library.array(x) for x in arrays])
    for count, change in enumerate((wider, turned), 2):
        assert both([change(library, x) for x in arrays]) == right
        assert len(made) == 2 * count


OTHERS: list[dict[str, Any]] = [
    {},
    {"scale": 0.5},
    {"causal": True, "query_start": "start"},
    {"causal": True, "query_start": "end"},
    {"causal": True, "query_start": [0, 2]},
    {"window": (1, 0), "query_start": 0},
    {"window": (2, 0), "query_start": 0},
    {"key_lengths": [3, 7]},
    {"mask": np.tri(5, 7, 1, dtype=bool)},
    {"mask": np.tri(5, 7, 1, dtype=bool)[None].repeat(2, 0)},
]


@on_cupy
def test_other_options_have_plans_of_their_own(library: Library, made: list[str]) -> None:
    arrays = [library.array(draw(*shape)) for shape in SHAPES]
    given = [{name: library.array(x) if name == "mask" else x for name, x in some.items()} for some in OTHERS]
    first = [both(arrays, **some) for some in given]
    assert len(made) == 2 * len(OTHERS)
    assert len(set(map(tuple, first))) == len(OTHERS) - 1, "two masks hide the same"
    assert [both(arrays, **some) for some in given] == first
    assert len(made) == 2 * len(OTHERS)


@on_cupy
def test_dtypes_and_keys_as_values_have_plans_of_their_own(library: Library, made: list[str]) -> None:
    for dtype in ("float32", "float64"):
        q, k = (library.array(draw(*shape), dtype) for shape in SHAPES[:2])
        for values in (None, k, k.copy()):
            F.attention(q, k, values)
    assert len(made) == 2 * 2 * 3


@on_cupy
def test_plans_do_not_pile_up(library: Library, made: list[str]) -> None:
    kernels = library.backend._attention_kernels
    q, k, v = (library.array(draw(*shape)) for shape in SHAPES)
    for i in range(PLANS + 40):
        F.attention(q, k, v, scale=1.0 + i)
    assert len(made) == 2 * (PLANS + 40)
    assert PLANS // 2 <= len(kernels.plans) <= PLANS


@given(st.integers(1, 5), st.lists(st.integers(0, 12)))
@settings(max_examples=200)
def test_what_was_asked_for_last_is_known(half: int, keys: list[int]) -> None:
    recent: Recent[str] = Recent(2 * half)
    for at, key in enumerate(keys):
        before = list(dict.fromkeys(reversed(keys[:at])))
        found = recent.get(key)
        assert found in (None, str(key))
        if key in before[:half]:
            assert found is not None
        if found is None:
            recent.put(key, str(key))
        assert len(recent) <= 2 * half


@on_cupy
@pytest.mark.parametrize("T", [5, 300])  # the small kernels, and those in tiles
@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_backward_needs_can_be_copied(library: Library, T: int, again: Callable[[Any], Any]) -> None:
    q, k, v, dout = (library.array(draw(2, T, 8)) for _ in range(4))
    _, saved = F.attention(q, k, v, causal=True, query_start=0, key_lengths=[T, 3])
    other = again(saved)
    assert bits([other.result.lse]) == bits([saved.result.lse])
    assert bits(F.attention_backward(other, dout)) == bits(F.attention_backward(saved, dout))


@on_cupy
def test_threads_share_a_plan(library: Library, made: list[str]) -> None:
    inputs = [[library.array(draw(2, T, 8) + i) for T in (20, 30, 30)] for i in range(8)]
    right = [both(arrays) for arrays in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(both, inputs * 8)) == right * 8
    assert len(made) == 2


@on_cupy
def test_without_the_drivers_own_launch(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    """CuPy documents no way to it; the documented launch has the same results."""
    arrays = [library.array(draw(*shape)) for shape in SHAPES]
    options: dict[str, Any] = {"causal": True, "query_start": [1, 2], "key_lengths": [7, 3]}
    right, xp = both(arrays, **options), library.xp
    others = {name: getattr(xp, name) for name in ("ndarray", "asarray", "ascontiguousarray", "RawModule")}
    kinds = ("runtime", "alloc", "get_current_stream")
    kernels = Kernels(
        SimpleNamespace(**others, cuda=SimpleNamespace(**{name: getattr(xp.cuda, name) for name in kinds}))
    )
    monkeypatch.setattr(library.backend, "_attention_kernels", CudaAttention(kernels))
    assert both(arrays, **options) == right


@on_cupy
def test_the_first_launch_of_a_thread(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    """The driver knows no device in a thread where the runtime was not asked for anything yet."""
    arrays = [library.array(draw(*shape)) for shape in SHAPES]
    right, xp, met = both(arrays), library.xp, []

    class InvalidContextError(Exception):
        status = 201

    def launch(*arguments: Any) -> None:
        if not met:
            raise InvalidContextError
        xp.cuda.driver.launchKernel(*arguments)

    def meet(device: int) -> None:
        met.append(device)
        xp.cuda.runtime.setDevice(device)

    runtime = SimpleNamespace(**{name: getattr(xp.cuda.runtime, name) for name in dir(xp.cuda.runtime)})
    runtime.setDevice = meet
    drivers = SimpleNamespace(launchKernel=launch, launchCooperativeKernel=launch, CUDADriverError=InvalidContextError)
    cuda = SimpleNamespace(runtime=runtime, driver=drivers, alloc=xp.cuda.alloc)
    cuda.get_current_stream = xp.cuda.get_current_stream
    others = {name: getattr(xp, name) for name in ("ndarray", "asarray", "ascontiguousarray", "RawModule")}
    monkeypatch.setattr(
        library.backend, "_attention_kernels", CudaAttention(Kernels(SimpleNamespace(**others, cuda=cuda)))
    )
    assert both(arrays) == right
    assert met == [0]
