"""What is remembered of calls: the same as without a memory, and never an error less."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnbackends import get_backend
from attnlayers import functional as F
from attnlayers.functional._attention import form as module
from attnlayers.functional._attention.form import FORMS, Form
from attnlayers.functional.checks import check

T_Q, T_K, N = 3, 5, 2
NUMPY = get_backend("numpy")


def arrays(dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.ones((N, T, 4), dtype) for T in (T_Q, T_K, T_K))  # type: ignore[return-value]


def same(one: Form, other: Form) -> bool:
    """Whether two forms say the same, arrays within them included."""
    return repr(one) == repr(other)


STARTS = st.one_of(
    st.sampled_from(["start", "end"]),
    st.integers(-9, 9),
    st.lists(st.integers(-9, 9), min_size=N, max_size=N),
    st.lists(st.integers(-9, 9), min_size=N, max_size=N).map(np.array),
)
SIDES = st.one_of(st.none(), st.integers(0, 9))
LENGTHS = st.one_of(
    st.none(),
    st.lists(st.integers(0, T_K), min_size=N, max_size=N),
    st.lists(st.integers(0, T_K), min_size=N, max_size=N).map(np.array),
    st.tuples(*[st.integers(0, T_K)] * N),
)


@given(st.booleans(), STARTS, st.tuples(SIDES, SIDES), LENGTHS, st.sampled_from(["float32", "float64", "float16"]))
@settings(max_examples=300)
def test_what_is_remembered_is_what_would_be_made(
    causal: bool, start: Any, window: tuple[int | None, int | None], lengths: Any, dtype: str
) -> None:
    q, k, v = arrays(dtype)
    options = False, causal, start, window, lengths
    known = NUMPY, q.dtype, (q.shape, k.shape, v.shape), False, causal, window
    made = module._form(*known, start, lengths, None, None)
    assert same(Form.of(NUMPY, q, k, v, *options), made)
    assert same(Form.of(NUMPY, q, k, v, *options), made)


@pytest.mark.parametrize("name", ["query_start", "key_lengths"])
@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_few_numbers_are_remembered_by_what_they_are(name: str, kind: Any) -> None:
    q, k, v = arrays()
    options = {name: kind([1, 2]), "window": (2, 2)} if name == "query_start" else {name: kind([1, 2])}
    first = Form.of(NUMPY, q, k, v, **options)
    assert Form.of(NUMPY, q, k, v, **options) is first
    assert Form.of(NUMPY, q + 1, k, v, **options) is first
    changed = options[name]
    if kind is not tuple:
        changed[0] = 2
        assert not same(Form.of(NUMPY, q, k, v, **options), first)


def test_an_array_that_changes_later_does_not_change_what_is_remembered() -> None:
    q, k, v = arrays()
    lengths = np.array([1, 2])
    first = Form.of(NUMPY, q, k, v, key_lengths=lengths)
    lengths[...] = 3
    assert first.visibility.lengths.tolist() == [1, 2]


def test_true_is_no_position_after_one_was_remembered() -> None:
    q, k, v = arrays()
    F.attention(q, k, v, causal=True, query_start=1)
    F.attention(q, k, v, causal=True, query_start="start", window=(1, 0), key_lengths=[1, 0])
    for options in ({"query_start": True}, {"query_start": 1.0}, {"query_start": "start", "window": (True, False)}):
        with pytest.raises(TypeError):
            F.attention(q, k, v, causal=True, **options)
    for lengths in ([True, False], [1.0, 0.0], np.array([True, False])):
        with pytest.raises(TypeError):
            F.attention(q, k, v, key_lengths=lengths)


def test_errors_are_not_remembered() -> None:
    q, k, v = arrays()
    for _ in range(2):
        check(q=(q, "* T_q D"), k=(k, "* T_k D"))
        with pytest.raises(ValueError, match="`k` must have shape"):
            check(q=(q, "* T_q D"), k=(k[..., :3], "* T_k D"))
        with pytest.raises(TypeError, match="`k` must have the dtype of q"):
            check(q=(q, "* T_q D"), k=(k.astype("float64"), "* T_k D"))
        with pytest.raises(ValueError, match="`query_start` must be given"):
            F.attention(q, k, v, causal=True)
        with pytest.raises(ValueError, match="the leading axes of q, k, v must broadcast"):
            F.attention(q, np.ones((3, T_K, 4), "float32"), np.ones((3, T_K, 4), "float32"))


def test_forms_do_not_pile_up() -> None:
    q, k, v = arrays()
    for start in range(FORMS + 10):
        Form.of(NUMPY, q, k, v, False, True, start)
    assert module._remembered.cache_info().currsize == FORMS
