"""Indices that name nothing: one error, which a device is not waited for."""

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
    size=st.integers(1, 9),
    ids=st.lists(st.integers(-3, 11) | FAR, max_size=6),
    ignore=st.none() | st.integers(-3, 11),
)
def test_ids_within(library: Library, size: int, ids: list[int], ignore: int | None) -> None:
    backend, wrong = library.backend, [i for i in ids if i != ignore and not 0 <= i < size]
    given_ids = library.array(np.array(ids, np.int64))
    if not wrong:
        found = library.numpy(backend.ids_within(given_ids, size, "ids", "advice", ignore))
        assert found.tolist() == [0 if i == ignore else i for i in ids]
        return
    with pytest.raises(IndexError, match=rf"^`ids` must lie in 0 \.\. {size - 1}.*: advice$") as error:
        library.wait(backend.ids_within(given_ids, size, "ids", "advice", ignore))
    shown = int(str(error.value).rpartition("got ")[2].partition(":")[0])
    assert any(shown == i or min(abs(i), abs(shown)) >= 2**39 - 1 for i in wrong)
    backend.synchronize()  # it is raised once


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
