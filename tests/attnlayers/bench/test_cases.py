"""The cases: shapes of the table, inputs by seed."""

import numpy as np
import pytest

from attnlayers.bench.cases import NAMES, SWEEP, TABLE, Case, chosen


def test_the_table() -> None:
    shapes = {case.name: (case.batch, case.T_q, case.T_k, case.D) for case in TABLE}
    assert shapes == {
        "book": (128, 10, 29, 256),
        "short": (32, 64, 64, 256),
        "mid": (16, 256, 256, 64),
        "long": (16, 1024, 1024, 64),
        "causal": (8, 2048, 2048, 64),
        "longer": (4, 4096, 4096, 64),
        "decode": (64, 1, 4096, 64),
        "huge": (1, 16384, 16384, 64),
    }
    assert [case.name for case in TABLE if case.causal] == ["causal"]
    assert [case.name for case in TABLE if case.shared] == ["book"]
    assert [case.name for case in TABLE if case.forward_only] == ["decode"]
    assert [case.name for case in TABLE if case.memory] == ["huge"]
    assert TABLE[-1].weights_bytes == 2**30


def test_chosen() -> None:
    assert chosen(("mid", "book")) == [TABLE[0], TABLE[2]]
    assert chosen(("sweep",)) == list(SWEEP)
    assert chosen(("training",)) == []
    assert chosen(NAMES) == [*TABLE, *SWEEP]


def test_work_is_counted_once() -> None:
    """By hand: 2 entries, 3 queries, 5 keys, D = 7; q, dout, out, dq and k, dk, v, dv."""
    case = Case("tiny", 2, 3, 5, 7)
    product = 2 * 2 * 3 * 5 * 7
    queries, keys = 2 * 3 * 7, 2 * 5 * 7
    assert case.work("forward") == (2 * product, 4 * (2 * queries + 2 * keys))
    assert case.work("backward") == (4 * product, 4 * (3 * queries + 4 * keys))
    assert case.work("both", 2) == (6 * product, 2 * (4 * queries + 4 * keys))
    assert Case("tiny", 2, 3, 5, 7, shared=True).work("both") == (6 * product, 4 * (4 * queries + 2 * keys))
    assert Case("tiny", 1, 3, 2, 7, causal=True).work("forward")[0] == 2 * 2 * (1 + 2 + 2) * 7


@pytest.mark.parametrize("shared", [False, True])
def test_inputs(shared: bool) -> None:
    case = Case("tiny", 2, 3, 5, 7, shared=shared)
    sets = case.draw()
    assert len(sets) == 16
    q, k, v, dout = sets[0]
    assert (q.shape, k.shape, v.shape, dout.shape) == ((2, 3, 7), (2, 5, 7), (2, 5, 7), (2, 3, 7))
    assert {x.dtype for x in sets[0]} == {np.dtype(np.float32)}
    assert (v is k) is shared
    assert not np.array_equal(q, sets[1][0])
    for x, again in zip(sets[1], case.draw()[1], strict=True):
        np.testing.assert_array_equal(x, again)


def test_large_inputs_are_few() -> None:
    assert len(TABLE[6].draw()) == 2


def test_scores_have_a_deviation_of_one() -> None:
    for case in (Case("a", 3, 101, 103, 64), Case("b", 3, 101, 103, 256, shared=True)):
        q, k, _, _ = case.draw()[0]
        assert np.std(case.scale * (q @ k.swapaxes(1, 2))) == pytest.approx(1, abs=0.05)


def test_directions() -> None:
    assert TABLE[0].directions == ("forward", "backward", "both")
    assert TABLE[6].directions == ("forward",)
    assert SWEEP[0].directions == ("both",)
