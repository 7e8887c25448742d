"""A library's own LSTM against the plain loop, which every library can run."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import functional as F

NAMES = ("hs", "h", "c", "dx", "dWx", "dWh", "db", "dh", "dc")


@pytest.fixture(params=["numpy", "numpy-read-only", "cupy"])
def own_way(request: pytest.FixtureRequest) -> Library:
    """A library that takes calls of `lstm`."""
    return library_of(request.param)


def turned(library: Library, array: Any) -> Any:
    """The same numbers with the axes in the other order in memory."""
    order = tuple(reversed(range(array.ndim)))
    apart = library.xp.permute_dims(array, order)
    return library.xp.permute_dims(library.array(library.numpy(apart)), order)


@settings(deadline=None, max_examples=40)
@given(
    N=st.one_of(st.integers(0, 20), st.sampled_from([127, 130, 257])),
    T=st.integers(0, 6),
    D=st.integers(0, 9),
    H=st.integers(1, 33),
    masked=st.booleans(),
    states=st.booleans(),
    in_memory=st.sampled_from(["as drawn", "turned"]),
    seed=st.integers(0, 100),
)
def agree(
    library: Library, N: int, T: int, D: int, H: int, masked: bool, states: bool, in_memory: str, seed: int
) -> None:
    d = Draw(library, seed=seed)
    arrays = [d(N, T, D), d(D, 4 * H), d(H, 4 * H), d(4 * H), d(N, T, H), *(d(N, H) for _ in range(4))]
    mask = d.mask(N, T) if masked else None
    if in_memory == "turned":
        arrays = [turned(library, array) for array in arrays]
        mask = None if mask is None else turned(library, mask)
    x, Wx, Wh, b, dhs, *four = arrays
    h, c, dh, dc = four if states else [None] * 4

    def run() -> list[Any]:
        *forward, saved = F.lstm(x, Wx, Wh, b, h=h, c=c, mask=mask)
        first, again = (F.lstm_backward(saved, dhs, dh=dh, dc=dc) for _ in range(2))
        for one, other in zip(first, again, strict=True):  # a first backward changes nothing for a second
            np.testing.assert_array_equal(library.numpy(one), library.numpy(other))
        return [library.numpy(array) for array in (*forward, *first)]

    own = run()
    with patch.object(library.backend, "lstm", return_value=None) as asked:
        plain = run()
    asked.assert_called_once()
    for name, one, other in zip(NAMES, own, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * max(1, N * T), err_msg=name)


def test_a_librarys_own_way_agrees_with_the_plain_loop(own_way: Library) -> None:
    agree(own_way)


@pytest.mark.parametrize(("N", "H"), [(3, 5), (4, 600), (9, 5), (40, 200), (130, 5)])
def test_a_state_of_infinity_warns_of_nothing(N: int, H: int) -> None:
    """0 * infinity, in the calling thread or in another, with products in one thread or in several."""
    d = Draw(library_of("numpy"))
    forget = np.repeat([-1e9, 0.0, 0.0, 0.0], H)
    c = np.full((N, H), np.inf)
    hs, *_, saved = F.lstm(d(N, 3, 2), d(2, 4 * H), np.zeros((H, 4 * H)), forget, c=c)
    gradients = F.lstm_backward(saved, d(N, 3, H))
    assert np.isnan(hs).all()
    assert np.isnan(gradients[2]).all()
