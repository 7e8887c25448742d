"""One fixture for every array library that this machine has; the others are skipped with the reason."""

import pytest
from support import Library

from attnbackends import available_backends, get_backend

try:
    import torch
except ImportError:  # then what needs it is skipped
    pass
else:
    torch.set_num_threads(1)  # on arrays as small as these, its threads only get in each other's way

LIBRARIES = ("numpy", "numpy-read-only", "array_api_strict", "torch", "cupy")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    """An array library. Read-only NumPy is there to catch whoever writes to an argument."""
    return library_of(request.param)


def library_of(name: str) -> Library:
    """The array library of that name; skips the test where it cannot be used."""
    backend, _, variant = name.partition("-")
    found = available_backends().get(backend)
    if found is None:
        pytest.skip(f"{backend}: no entry point in the group attnlayers.backends: pip install -e .")
    if not found.usable:
        pytest.skip(f"{backend}: {found.detail}")
    return Library(get_backend(backend), read_only=variant == "read-only")
