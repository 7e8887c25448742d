"""Indices that name nothing: one error, which a device is not waited for."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import Embedding, KVCache
from attnlayers import functional as F

FAR = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 9),
    ids=st.lists(st.integers(-3, 11) | FAR, max_size=6),
    tail=st.lists(st.integers(0, 3), max_size=3),
    has_gaps=st.booleans(),
)
def test_rows_by_id(library: Library, size: int, ids: list[int], tail: list[int], has_gaps: bool) -> None:
    backend, numbers = library.backend, np.arange(2 * size * prod(tail)).reshape(size, 2, *tail)
    table, expected = library.array(numbers), numbers
    if has_gaps:
        table, expected = table[:, 1, ...], numbers[:, 1]
    given_ids = library.array(np.array(ids, np.int64))
    wrong = [i for i in ids if not 0 <= i < size]
    if not wrong:
        assert np.array_equal(library.numpy(backend.take_rows(table, given_ids, "ids", "advice")), expected[ids])
        return
    with pytest.raises(IndexError, match=rf"^`ids` must lie in 0 \.\. {size - 1}, got .*: advice$") as error:
        library.wait(backend.take_rows(table, given_ids, "ids", "advice"))
    assert_names_one(error.value, wrong)
    backend.synchronize()  # it is raised once


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 9),
    labels=st.lists(st.integers(-3, 11) | FAR, min_size=1, max_size=6),
    ignore=st.integers(-3, 11),
)
def test_labels_that_name_no_class(library: Library, size: int, labels: list[int], ignore: int) -> None:
    backend, wrong = library.backend, [i for i in labels if i != ignore and not 0 <= i < size]
    logits, given_labels = library.array(np.zeros((len(labels), size))), library.array(np.array(labels, np.int64))
    if not wrong:
        loss, _ = F.cross_entropy(logits, given_labels, ignore_label=ignore)
        counted = any(label != ignore for label in labels)
        assert library.numpy(loss) == pytest.approx(np.log(size) if counted else 0)
        return
    also = f", or be {ignore} where they do not count"
    with pytest.raises(IndexError, match=rf"^`labels` must lie in 0 \.\. {size - 1}{also}, got .*: give ") as error:
        library.wait(F.cross_entropy(logits, given_labels, ignore_label=ignore))
    assert_names_one(error.value, wrong)
    backend.synchronize()


def assert_names_one(error: IndexError, wrong: list[int]) -> None:
    """The error shows one of the wrong ids; a device shows those of very many digits as the largest that it can."""
    shown = int(str(error).rpartition("got ")[2].partition(":")[0])
    assert any(shown == i or min(abs(i), abs(shown)) >= 2**39 - 1 for i in wrong)


def test_a_device_tells_with_the_next_value_that_is_read(library: Library) -> None:
    backend, d = library.backend, Draw(library)
    if backend.on_host:
        pytest.skip("the host tells at once")
    W, wrong = d(5, 3), library.array([1, 5])
    rows = library.array([0, 0])

    def embed() -> Any:
        return F.embedding(W, wrong)[0]

    out = embed()
    with pytest.raises(IndexError, match="got 5"):
        backend.to_numpy(out)
    assert np.array_equal(backend.to_numpy(out), backend.to_numpy(W)[[1, 0]])  # never read from elsewhere
    embed()
    backend.xp.cuda.Device().synchronize()
    with pytest.raises(IndexError, match="got 5"):
        Embedding(W).forward(rows)  # a later check
    assert library.numpy(Embedding(W).forward(rows)).shape == (2, 3)


@pytest.mark.parametrize("rows", [[0, 2], [-1, 0]])
def test_entries_that_a_cache_does_not_have(library: Library, rows: list[int]) -> None:
    cache = KVCache(2, 1, 3, 4, like=library.array([1.0]))
    with pytest.raises(IndexError, match=r"^`rows` must lie in 0 \.\. 1, got .*: name an entry of the batch for each$"):
        library.wait(cache.reorder(library.array(rows)))
