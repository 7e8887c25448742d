"""Which of the project's CUDA kernels a test launches."""

from typing import Any

import pytest
from support import Library

from attnbackends._cuda.attention import CudaAttention


@pytest.fixture
def launched(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that CuPy's backend launches, in order."""
    backend, names = library.backend, []
    launch = backend._kernels.launch

    def noting(name: str, *rest: Any, **more: Any) -> None:
        names.append(name)
        launch(name, *rest, **more)

    monkeypatch.setattr(backend._kernels, "launch", noting)
    attention = CudaAttention(library.xp, noting, backend._kernels.shared_limit)
    monkeypatch.setattr(backend, "_attention_kernels", attention)
    return names
