"""Which calls go to cuDNN, a fake one on the bench, and where they go otherwise."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.counts import Counts
from dense_attention import dense_gradients
from support import Library

from attnbackends._cuda.cudnn import Band
from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

Since = Callable[[], Counts]


def new(library: Library, *shape: int) -> Any:
    return library.array(np.random.default_rng(sum(shape)).standard_normal(shape), "float16")


@pytest.fixture
def arrays(library: Library) -> list[Any]:
    """q, k, v and dout."""
    return [new(library, *shape) for shape in ((2, 5, 8), (2, 7, 8), (2, 7, 16), (2, 5, 16))]


def ways(cudnn: ModuleType) -> list[str]:
    """What cuDNN was asked for since the last call of this."""
    took = [call for call in cudnn.calls if call != "handle"]
    cudnn.calls.clear()
    return took


def close(found: list[Any], right: list[np.ndarray]) -> None:
    for own, exact in zip(found, right, strict=True):
        assert np.abs(own.get().astype(float) - exact).max() < 5e-3


def exactly(arrays: list[Any], dlse: np.ndarray | None = None) -> list[np.ndarray]:
    """Output and gradients in float64."""
    q, k, v, dout = (x.get().astype(float) for x in arrays)
    out, _, *gradients = dense_gradients(q, k, v, dout, np.zeros((2, 5)) if dlse is None else dlse, shared=False)
    return [out, *gradients]


TAKEN, REFUSED = (["build sdpa", "sdpa"], False), ([], True)


def test_calls_that_go_elsewhere(library: Library, cudnn: ModuleType, done_since: Since, arrays: list[Any]) -> None:
    def forward(q: Any = arrays[0], k: Any = arrays[1], v: Any = arrays[2], **options: Any) -> tuple[list[str], bool]:
        """What cuDNN was asked for, and whether products were made."""
        done_since()
        F.attention(q, k, v, **options)
        return ways(cudnn), done_since().products > 0

    longer = new(library, 2, 11, 8)
    assert forward() == TAKEN
    assert forward() == (["sdpa"], False)
    assert forward(scale=0.5) == TAKEN
    assert forward(mask=library.xp.ones((5, 7), dtype=bool)) == REFUSED
    assert forward(key_lengths=[3, 4]) == REFUSED
    assert forward(causal=True, query_start=1) == REFUSED
    assert forward(causal=True, query_start=[0, 2]) == REFUSED
    assert forward(q=longer, window=(2, 0), query_start="start") == REFUSED
    assert forward(q=longer, causal=True, query_start="end") == REFUSED
    assert forward(q=longer, causal=True, query_start="start") == TAKEN
    assert forward(q=new(library, 2, 5, 11), k=new(library, 2, 7, 11)) == REFUSED
    assert forward(*(x.astype("f4") for x in arrays[:3]))[0] == []
    assert library.backend.machine.refusals() == {}


def test_what_is_refused_is_told_and_not_asked_again(
    library: Library, cudnn: ModuleType, done_since: Since, arrays: list[Any]
) -> None:
    cudnn.refuse.add("sdpa")
    for asked in (["build sdpa"], []):
        done_since()
        F.attention(*arrays[:3], scale=0.25)
        assert (ways(cudnn), done_since().products > 0) == (asked, True)
    ((call, reason),) = library.backend.machine.refusals().items()
    assert call == f"cuDNN, forward in float16, queries (2, 1, 5, 8), keys (2, 1, 7, 8), {Band(None, None, False)}"
    assert reason == "cudnnGraphNotSupportedError: sdpa"


def test_backward(library: Library, cudnn: ModuleType, arrays: list[Any]) -> None:
    out, saved = F.attention(*arrays[:3])
    close([out, *F.attention_backward(saved, arrays[3])], exactly(arrays))
    assert ways(cudnn) == ["build sdpa", "sdpa", "build sdpa_backward", "sdpa_backward"]


def test_a_gradient_of_the_log_sum_exp_goes_by_products(
    library: Library, cudnn: ModuleType, done_since: Since, arrays: list[Any]
) -> None:
    dlse = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float16)
    out, saved = F.attention(*arrays[:3])
    done_since()
    close([out, *F.attention_backward(saved, arrays[3], dlse=library.array(dlse))], exactly(arrays, dlse))
    assert done_since().products > 0
    assert ways(cudnn) == ["build sdpa", "sdpa"]


def test_backward_is_refused_once(library: Library, cudnn: ModuleType, arrays: list[Any]) -> None:
    cudnn.refuse.add("sdpa_backward")
    for forward, asked in ((["build sdpa", "sdpa"], ["build sdpa_backward"]), (["sdpa"], [])):
        out, saved = F.attention(*arrays[:3])
        close([out, *F.attention_backward(saved, arrays[3])], exactly(arrays))
        assert ways(cudnn) == [*forward, *asked]


def test_one_query_and_one_key_go_backward_by_products(library: Library, cudnn: ModuleType) -> None:
    _, saved = F.attention(*(new(library, 2, 1, size) for size in (8, 8, 16)))
    F.attention_backward(saved, new(library, 2, 1, 16))
    assert ways(cudnn) == ["build sdpa", "sdpa"]


def not_aligned(xp: Any, x: Any) -> Any:
    room = xp.zeros((*x.shape[:-1], x.shape[-1] + 3), dtype=x.dtype)
    room[..., 1:-2] = x
    return room[..., 1:-2]


def half_of_wider_rows(xp: Any, x: Any) -> Any:
    room = xp.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype)
    room[..., : x.shape[-1]] = x
    return room[..., : x.shape[-1]]


LAYOUTS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "half of wider rows": (half_of_wider_rows, 0),
    "not aligned": (not_aligned, 7),  # q, k, v, and all four in backward
    "in the order of Fortran": (lambda xp, x: xp.asfortranarray(x), 7),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_that_are_not_dense(
    library: Library, cudnn: ModuleType, done_since: Since, arrays: list[Any], layout: str
) -> None:
    change, copies = LAYOUTS[layout]
    q, k, v, dout = (change(library.xp, x) for x in arrays)
    done_since()
    out, saved = F.attention(q, k, v)
    found = F.attention_backward(saved, dout)
    did = done_since()
    assert did.launches.get("cupy_copy__float16_float16", 0) + did.on_device == copies + 1  # the output is kept
    assert ways(cudnn) == ["build sdpa", "sdpa", "build sdpa_backward", "sdpa_backward"]
    close([out, *found], exactly(arrays))


def test_described(library: Library, cudnn: ModuleType) -> None:
    backend = library.backend
    assert backend.machine.trial() == {"cuDNN": "frontend 1.32.0, takes float16"}
    cudnn.refuse.add("sdpa_backward")
    backend._cudnn._graphs.clear()
    told = backend.machine.trial()["cuDNN"]
    assert told.startswith("frontend 1.32.0, refuses float16: cudnnGraphNotSupportedError: ")
    assert backend.machine.describe()["cuDNN"] == "frontend 1.32.0"


def test_described_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, library: Library, cudnn: ModuleType, done_since: Since, arrays: list[Any]
) -> None:
    backend = library.backend
    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.delitem(backend.__dict__, "_cudnn_or_reason")
    assert backend.machine.refusals() == {}, "not asked so far"
    for told in (backend.machine.describe(), backend.machine.refusals()):
        assert told["cuDNN"].startswith("not used (ModuleNotFoundError: import of cudnn halted")
        assert "install attnlayers[cudnn12] or attnlayers[cudnn13]" in told["cuDNN"]
    assert backend.machine.trial() == {}
    done_since()
    F.attention(*arrays[:3])
    assert done_since().products > 0
    assert not cudnn.calls
