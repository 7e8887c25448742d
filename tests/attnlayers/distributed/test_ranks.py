"""What ranks do together, on threads in place of processes, against sums in double precision."""

from typing import Any

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import results, run_ranks
from support import Draw, Library

from attnlayers.distributed import Ranks, RanksError
from attnlayers.distributed._errors import Told

LIBRARIES = ["numpy", "array_api_strict", "torch", "cupy"]


@given(count=st.integers(0, 200), size=st.integers(1, 9))
def test_shares_cover_all_rows_once_and_evenly(count: int, size: int) -> None:
    shares = results(run_ranks(size, lambda ranks: ranks.share(count)))
    assert [row for share in shares for row in range(count)[share]] == [*range(count)]
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("name", LIBRARIES)
@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=4),
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=4).filter(any),
    dtypes=st.lists(st.sampled_from(["float32", "float64"]), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_means_are_weighted(
    name: str, shapes: list[tuple[int, ...]], weights: list[int], dtypes: list[str], seed: int
) -> None:
    library = library_of(name)
    size = len(weights)
    rng = np.random.default_rng(seed)
    kinds = dtypes[: len(shapes)]
    own = [
        [rng.standard_normal(shape).astype(kind) for shape, kind in zip(shapes, kinds, strict=False)] for _ in weights
    ]
    losses = rng.standard_normal(size)

    def work(ranks: Ranks) -> tuple[list[Any], float]:
        grads = [library.array(grad) for grad in own[ranks.rank]]
        places = [*grads]
        (loss,) = ranks.average(grads, weights[ranks.rank], library.array(losses[ranks.rank].astype(kinds[0])))
        assert all(a is b for a, b in zip(grads, places, strict=True))
        return [library.numpy(grad) for grad in grads], float(loss)

    found = results(run_ranks(size, work))
    total = sum(weights)
    for i in range(len(own[0])):
        exact = sum(w * grads[i].astype(np.float64) for w, grads in zip(weights, own, strict=True)) / total
        sizes = sum(w * np.abs(grads[i].astype(np.float64)) for w, grads in zip(weights, own, strict=True)) / total
        for grads, _ in found:
            assert grads[i].dtype == own[0][i].dtype
            assert np.all(np.abs(grads[i] - exact) <= 8 * np.finfo(grads[i].dtype).eps * sizes)
            assert grads[i].tobytes() == found[0][0][i].tobytes()
    exact_loss = float(np.dot(weights, losses) / total)
    assert found[0][1] == pytest.approx(exact_loss, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_added_up_in_float32(dtype: str) -> None:
    """1024 and seven times 0.25: in half precision nothing would come of what is small."""
    library = library_of("torch")

    def work(ranks: Ranks) -> Any:
        grads = [library.array([1024.0 if ranks.first else 0.25], dtype)]
        ranks.average(grads, 1)
        return float(grads[0][0])

    exact = (1024 + 7 * 0.25) / 8
    assert set(results(run_ranks(8, work))) == {float(library.array([exact], dtype)[0])}


def test_gradients_may_change_their_shapes() -> None:
    def work(ranks: Ranks) -> list[float]:
        means = []
        for shape in ((2,), (3, 2), (2,), ()):
            grads = [np.full(shape, float(ranks.rank))]
            ranks.average(grads, 1)
            means.append(float(np.max(grads[0])))
        return means

    assert results(run_ranks(3, work)) == [[1.0] * 4] * 3


def test_no_gradients() -> None:
    with pytest.raises(ValueError, match="`grads` must have at least one gradient, got none"):
        Ranks().average([], 1)


def test_alone_nothing_changes() -> None:
    grads = [np.array([1.0, np.nan])]
    loss = np.float64(3)
    assert Ranks().average(grads, 0, loss) == (loss,)
    np.testing.assert_array_equal(grads[0], [1.0, np.nan])


def test_who_differs_is_named() -> None:
    def work(ranks: Ranks) -> None:
        ranks.agree({"--lr": 0.1 if ranks.rank != 2 else 0.2, "--seed": 3})

    for error in run_ranks(4, work):
        assert isinstance(error, RanksError)
        assert str(error) == "ranks differ in --lr: 0.2 on rank 2 (here), 0.1 on rank 0 (here): start all ranks alike"


def test_what_only_some_give() -> None:
    def work(ranks: Ranks) -> None:
        ranks.agree({} if ranks.first else {"--lr": 0.1})

    assert "ranks differ in --lr: 0.1 on rank 1 (here), not given on rank 0 (here)" in str(run_ranks(2, work)[1])


@pytest.mark.parametrize("name", LIBRARIES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_one_bit_is_seen(name: str, data: st.DataObject) -> None:
    library = library_of(name)
    place, size = data.draw(st.integers(0, 11)), data.draw(st.integers(2, 3))
    other = data.draw(st.none() | st.integers(1, size - 1))

    def work(ranks: Ranks) -> None:
        values = np.arange(1, 13, dtype=np.float32)
        if ranks.rank == other:
            values[place] = np.nextafter(values[place], np.float32(100))
        ranks.check_equal([library.array(values[:5]), library.array(values[5:].reshape(7, 1))], "weights after step 3")

    found = run_ranks(size, work)
    if other is None:
        assert found == [None] * size
    else:
        for error in found:
            assert str(error).startswith("ranks differ in weights after step 3: ")
            assert f"on rank {other} (here)" in str(error)


@given(fails=st.sets(st.integers(0, 3)))
def test_the_first_that_failed_tells(fails: set[int]) -> None:
    def work(ranks: Ranks) -> str:
        def fail() -> str:
            if ranks.rank in fails:
                raise ValueError(f"rank {ranks.rank} failed")
            return "done"

        return ranks.together(fail)

    found = run_ranks(4, work)
    if not fails:
        assert found == ["done"] * 4
        return
    for rank, error in enumerate(found):
        if rank == min(fails):
            assert str(error) == f"rank {rank} failed"
        else:
            assert isinstance(error, Told)
            assert error.code == 1


@given(flags=st.lists(st.booleans(), min_size=1, max_size=5))
def test_any(flags: list[bool]) -> None:
    found = results(run_ranks(len(flags), lambda ranks: ranks.any(flags[ranks.rank])))
    assert found == [any(flags)] * len(flags)


def test_gradients_stay_where_they_live(library: Library) -> None:
    if library.read_only:
        pytest.skip("gradients are written to")
    d = Draw(library)
    values = [library.numpy(d(3, 2)) for _ in range(2)]

    def work(ranks: Ranks) -> Any:
        grads = [library.array(values[ranks.rank])]
        ranks.average(grads, 1)
        return library.numpy(grads[0])

    for found in results(run_ranks(2, work)):
        np.testing.assert_allclose(found, (values[0] + values[1]) / 2, rtol=1e-14)
