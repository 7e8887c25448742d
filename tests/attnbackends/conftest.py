"""What only the bench can tell of CuPy (tests/cuda_on_cpu): counts, and a fake cuDNN."""

import os
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from cuda_on_cpu.counts import Counts, counts
from support import Library

from attnbackends._cuda.cudnn import CudnnAttention


@pytest.fixture
def done_since() -> Callable[[], Counts]:
    """A function that tells what the device was asked for since its last call."""
    _bench_only("counts")
    before = counts()

    def since() -> Counts:
        nonlocal before
        last, before = before, counts()
        return before - last

    return since


@pytest.fixture
def cudnn(library: Library, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The fake frontend of cuDNN in the place of the real one."""
    _bench_only("has a fake cuDNN")
    from cuda_on_cpu import fake_cudnn

    fake_cudnn.calls.clear()
    fake_cudnn.refuse.clear()
    monkeypatch.setitem(sys.modules, "cudnn", fake_cudnn)
    monkeypatch.setattr(library.backend, "_cudnn_or_reason", CudnnAttention(library.xp))
    return fake_cudnn


def _bench_only(what: str) -> None:
    if "CUDA_ON_CPU_LIBRARIES" not in os.environ:
        pytest.skip(f"only the bench {what}: python tests/cuda_on_cpu/run.py -m pytest -k cupy")
