"""Which of the project's CUDA kernels a test launches."""

from collections.abc import Callable
from typing import Any

import pytest
from support import Library

from attnbackends._cuda.lstm import CudaLSTM
from attnbackends._cuda.plans import CudaAttention
from attnbackends._cuda.weighted import WeightedAttention


@pytest.fixture
def launched(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that CuPy's backend launches, in order."""
    backend, names = library.backend, []
    launch, ready = backend._kernels.launch, backend._kernels.ready

    def noting(name: str, *rest: Any, **more: Any) -> None:
        names.append(name)
        launch(name, *rest, **more)

    def noting_ready(name: str, *rest: Any, **more: Any) -> Callable[..., None]:
        made = ready(name, *rest, **more)

        def launch_ready(*arguments: float) -> None:
            names.append(name)
            made(*arguments)

        return launch_ready

    monkeypatch.setattr(backend._kernels, "launch", noting)
    monkeypatch.setattr(backend._kernels, "ready", noting_ready)
    own = CudaAttention(backend._kernels)
    monkeypatch.setattr(backend, "_attention_kernels", own)
    monkeypatch.setattr(backend, "_weighted", WeightedAttention(backend._kernels, backend._products, own))
    monkeypatch.setattr(backend, "_lstm_kernels", CudaLSTM(library.xp, backend.matmul, noting))
    return names
