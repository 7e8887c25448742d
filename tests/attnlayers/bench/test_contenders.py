"""Every contender that is installed computes the same; whoever does not is not timed."""

from typing import Any

import numpy as np
import pytest

from attnbackends import get_backend
from attnlayers.bench import duel as duels
from attnlayers.bench.cases import Case
from attnlayers.bench.contenders import LeftOutError, Loops, Obvious, Ours, dtype_of
from attnlayers.bench.duel import TOLERANCE, duel, exact_results, largest_difference
from attnlayers.bench.memory import added_arrays, added_memory
from attnlayers.bench.peers import PEERS, load, takes_part
from attnlayers.bench.processes import in_process

CASES = [
    Case("plain", 2, 3, 5, 7),
    Case("causal", 2, 5, 5, 7, causal=True),
    Case("shared", 2, 3, 5, 7, shared=True),
    Case("decode", 2, 1, 5, 7, forward_only=True),
]
numpy = get_backend("numpy")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results(case: Case, peer: str) -> None:
    if not takes_part(peer, case, "numpy"):
        pytest.skip("the book's loops are one layer")
    sets = case.draw()[:2]
    try:
        (make,) = PEERS[peer](case, sets, numpy, "float32").values()
    except LeftOutError as reason:
        pytest.skip(str(reason))
    assert not isinstance(make, str)
    contender = make()
    results = contender.results()
    exact = exact_results(case, sets[0])
    assert exact is not None
    assert len(results) == len(exact) == (1 if case.forward_only else 3 if case.shared else 4)
    assert largest_difference(exact, [x[:1] for x in results]) < 1e-5
    assert largest_difference(Ours(case, sets, numpy).results(), results) < 1e-5
    if not case.forward_only:
        contender.keep()
        both = [contender.to_numpy(x) for x in contender.both(1)[1:]]
        for _ in range(2):  # what was kept may be used again
            backward = [contender.to_numpy(x) for x in contender.backward(1)]
            assert largest_difference(both, backward) < 1e-6


def test_loops_are_the_books_alone() -> None:
    assert takes_part("loops", CASES[2], "numpy")
    assert not takes_part("loops", CASES[0], "numpy")
    assert not takes_part("loops", CASES[2], "cupy")
    make = PEERS["loops"](CASES[2], CASES[2].draw()[:1], numpy, "float32")["book's loops"]
    assert not isinstance(make, str)
    assert isinstance(make(), Loops)


def test_weights_that_are_too_large_are_left_out() -> None:
    with pytest.raises(LeftOutError, match=r"^its weights alone would take 1 GiB$"):
        PEERS["numpy"](Case("huge", 1, 2**14, 2**14, 1), [], numpy, "float32")


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(LeftOutError, match=r"^jax cannot be imported .*: pip install jax$"):
        load("jax")
    outcome = duel(CASES[0], "numpy", "float32", "jax", 0.0)
    assert list(outcome.left_out) == ["jax"]
    assert outcome.rows == []


def test_half_precision_is_named_alike() -> None:
    assert dtype_of(numpy, "float16") == np.float16
    assert dtype_of(numpy, "bfloat16").itemsize == 2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_duel(dtype: str) -> None:
    outcome = in_process(duel, CASES[0], "numpy", dtype, "numpy", 0.0)
    assert outcome.left_out == outcome.wrong == {}
    assert [(row.contender, row.direction) for row in outcome.rows] == [
        ("NumPy", direction) for direction in ("forward", "backward", "both")
    ]
    for row in outcome.rows:
        assert (row.case, row.backend, row.dtype, row.peer) == ("plain", "numpy", dtype, "numpy")
        assert len(row.ours) == len(row.theirs) == 5
        assert min(row.ours + row.theirs) > 0
        assert row.quartiles[0] <= row.ratio <= row.quartiles[1]
        assert 0 <= row.difference <= TOLERANCE[dtype]
        assert (row.errors is None) is (dtype == "float32")


def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, saved: Any, dout: Any) -> Any:
        return tuple(1.01 * np.asarray(x) for x in right(self, saved, dout))

    right = Obvious.pull
    monkeypatch.setattr(Obvious, "pull", wrong)
    outcome = duels.duel(CASES[0], "numpy", "float32", "numpy", 0.0)
    assert outcome.rows == []
    assert outcome.wrong["NumPy"].startswith("results differ by 1.0e-02 of the largest, 1e-04 allowed")


def test_what_is_not_a_number_differs() -> None:
    assert not largest_difference([np.ones(2)], [np.array([1, np.nan])]) <= 1e9


def test_memory_counts_what_is_held() -> None:
    case = Case("mid", 1, 2048, 2048, 8)  # weights of 16 MiB
    plain = in_process(added_memory, case, "numpy", "numpy", initializer=None)
    assert list(plain) == ["NumPy"]
    assert 25 < float(plain["NumPy"]) < 150
    ours = in_process(added_memory, case, "numpy", "attnlayers", initializer=None)
    assert 0 <= float(ours["attnlayers"]) < 150


def test_arrays_are_counted_as_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("mid", 1, 101, 103, 7)
    held = np.empty(0)

    def both(self: Ours, i: int) -> tuple[object, ...]:
        forgotten, outputs = np.empty(3_000_000, np.uint8), np.empty(4 * 2 * (101 + 103) * 7, np.uint8)
        return outputs, forgotten[:0].copy(), held

    monkeypatch.setattr(Ours, "both", both)
    assert added_arrays(case, "numpy") == pytest.approx(3, abs=0.1)
    monkeypatch.undo()
    assert 0 < added_arrays(case, "numpy") < 1
