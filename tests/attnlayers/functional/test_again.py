"""Calls without options that come again on a device: served without a second look, and right whatever came before."""

import gc
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest
from dense_attention import dense_gradients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnlayers import functional as F
from attnlayers.functional._attention import again
from attnlayers.functional._attention.problem import Problem

on_cupy = pytest.mark.parametrize("library", ["cupy"], indirect=True)

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


class Kind(NamedTuple):
    """What is remembered by; where arrays lie is not."""

    T: int
    dtype: str
    values: str
    scale: float | None


kinds = st.builds(
    Kind,
    st.sampled_from([3, 20, 70]),  # the small kernels, few rows in tiles, tiles
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["own", "keys", "the keys again"]),
    st.sampled_from([None, 1, 0.5]),
)
orders = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["dense", "wider", "turned"])), min_size=3, max_size=6)


def placed(library: Library, x: np.ndarray, lies: str) -> Any:
    """The same numbers in the order of C, with a gap after each row, or with entries and rows interchanged."""
    if lies == "wider":
        return library.array(np.concatenate((x, x), axis=2))[..., : x.shape[2]]
    if lies == "turned":
        return library.array(np.ascontiguousarray(x.swapaxes(0, 1))).swapaxes(0, 1)
    return library.array(x)


@on_cupy
@given(drawn=st.tuples(kinds, kinds), order=orders, seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_right_whatever_came_before(
    library: Library, drawn: tuple[Kind, Kind], order: list[tuple[int, str]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    again._known.clear()
    for which, lies in order:
        call = drawn[which]
        q, k, v, dout = (rng.standard_normal((2, call.T, 8)).astype(call.dtype) for _ in range(4))
        v = v if call.values == "own" else k
        at_q, at_k, at_v, at_dout = (placed(library, x, lies) for x in (q, k, v, dout))
        given_v = {"own": at_v, "keys": None, "the keys again": at_k}[call.values]
        out, saved = F.attention(at_q, at_k, given_v, scale=call.scale)
        gradients = F.attention_backward(saved, at_dout)
        shared, dlse = call.values == "keys", np.zeros((2, call.T))
        right = dense_gradients(q, k, v, dout, dlse, shared=shared, scale=call.scale)
        del right[1]  # the log-sum-exp
        bound = TOLERANCE[call.dtype]
        for found, wanted in zip((out, *gradients), right, strict=True):
            assert found.dtype == call.dtype
            np.testing.assert_allclose(found.get(), wanted, rtol=bound, atol=bound * np.abs(wanted).max())


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each call that goes the long way."""
    made: list[int] = []
    whole = Problem.of

    def of(*arguments: Any) -> Problem:
        made.append(1)
        return whole(*arguments)

    monkeypatch.setattr(Problem, "of", of)
    monkeypatch.setattr(again, "_known", {})
    return made


@on_cupy
def test_the_long_way_is_gone_once(library: Library, problems: list[int]) -> None:
    for T in (5, 40, 5, 40, 5):
        q, k, v = (library.array(np.ones((2, T, 8), "float32")) for _ in range(3))
        F.attention(q, k, v)
    assert len(problems) == 2


@on_cupy
def test_what_is_remembered_holds_no_array_and_has_a_bound(
    library: Library, problems: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "KNOWN", 4)
    q, k = (library.array(np.ones((2, 5, 8), "float32")) for _ in range(2))
    for i in range(11):
        F.attention(q, k, scale=1.0 + i)
        assert 1 <= len(again._known) <= 4
    F.attention(q, k, scale=11.0)
    assert len(problems) == 11
    gone = weakref.ref(q), weakref.ref(k)
    del q, k
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@on_cupy
def test_what_equals_a_number_is_looked_at(library: Library) -> None:
    q = library.array(np.ones((2, 5, 8), "float32"))
    for _ in range(2):
        F.attention(q, q, scale=1.0, keep_bytes=1)
        with pytest.raises(TypeError, match="`keep_bytes` must be an integer"):
            F.attention(q, q, scale=1.0, keep_bytes=True)
