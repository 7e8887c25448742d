"""The products alone: as many as attention has, whatever the blocks."""

from typing import Any

import numpy as np
import pytest

from attnbackends import PackedKeys, get_backend
from attnlayers.bench import products, training
from attnlayers.bench.cases import TABLE, Case
from attnlayers.bench.duel import duel
from attnlayers.bench.products import Products


class CountingKeys:
    """Keys as the NumPy backend packs them, that count as well."""

    def __init__(self, packed: PackedKeys, counted: list[int]) -> None:
        self.packed, self.counted = packed, counted

    def scores(self, q: Any, keys: slice, scale: float) -> Any:
        found = self.packed.scores(q, keys, scale)
        self.counted.append(2 * found.size * q.shape[-1])
        return found


class Counting:
    """The NumPy backend, and the operations of all products that it was asked for."""

    def __init__(self) -> None:
        self.backend = get_backend("numpy")
        self.counted: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def matmul(self, a: Any, b: Any) -> Any:
        found = self.backend.matmul(a, b)
        self.counted.append(2 * found.size * a.shape[-1])  # threads append, too
        return found

    def pack_keys(self, k: Any) -> Any:
        return CountingKeys(self.backend.pack_keys(k), self.counted)

    def of(self, call: Any) -> int:
        """Operations of a call."""
        self.counted.clear()
        call(0)
        return sum(self.counted)


@pytest.mark.parametrize("block", [2**18, 2**6])
@pytest.mark.parametrize("shared", [False, True])
def test_two_products_forward_and_four_backward(block: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK_SCORES", block)
    monkeypatch.setattr(products, "BLOCK_KEYS", 7)
    case = Case("tiny", 11, 17, 23, 5, shared=shared)
    counting = Counting()
    contender = Products(case, case.draw()[:2], counting)  # type: ignore[arg-type]
    one = 2 * 11 * 17 * 23 * 5
    assert counting.of(contender.forward) == 2 * one
    assert counting.of(contender.both) == 6 * one
    contender.keep()
    assert counting.of(contender.backward) == 4 * one


def test_five_backward_where_weights_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("tiny", 3, 17, 23, 5)
    monkeypatch.setattr(products, "KEEP_BYTES", case.weights_bytes - 1)
    counting = Counting()
    contender = Products(case, case.draw()[:1], counting)  # type: ignore[arg-type]
    assert counting.of(contender.both) == 7 * 2 * 3 * 17 * 23 * 5


def test_causal_leaves_out_what_no_row_of_a_block_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK_SCORES", 2**6)
    monkeypatch.setattr(products, "BLOCK_KEYS", 4)
    case = Case("tiny", 3, 31, 31, 5, causal=True)
    counting = Counting()
    contender = Products(case, case.draw()[:1], counting)  # type: ignore[arg-type]
    seen = sum(31 - 2 * (j // 2) for j in range(31))
    assert counting.of(contender.forward) == 2 * 2 * 3 * seen * 5
    contender.keep()
    assert counting.of(contender.backward) == 4 * 2 * 3 * seen * 5
    assert 0.5 < seen / 31**2 < 0.6


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_every_case_has_pieces_to_share_and_blocks_that_fit_a_cache(case: Case) -> None:
    tiny = [tuple(np.zeros((case.batch, T, 1), np.float32) for T in (case.T_q, case.T_k, case.T_k, case.T_q))]
    contender = Products(case, tiny, get_backend("numpy"))  # type: ignore[arg-type]
    assert len(contender.pieces) >= 4
    entries, keys, rows = contender.pieces[0]
    assert (entries.stop - entries.start) * rows * (keys.stop - keys.start) <= products.BLOCK_SCORES
    assert contender.again is (case.name in ("long", "causal", "longer", "huge"))


def test_a_duel_with_a_target_has_the_products_in_its_rounds() -> None:
    outcome = duel(Case("book", 2, 3, 5, 7, shared=True), "numpy", "float32", "loops", 0.0)
    for row in outcome.rows:
        assert row.products is not None
        assert row.floor == np.median(np.divide(row.products, row.theirs))
        assert len(row.products) == len(row.theirs)
    for peer, dtype in (("numpy", "float32"), ("loops", "float16")):
        outcome = duel(Case("book", 2, 3, 5, 7, shared=True), "numpy", dtype, peer, 0.0)
        assert [(row.products, row.floor) for row in outcome.rows] == [(None, None)] * 3


def test_a_duel_with_a_target_and_no_products_has_its_work_counted() -> None:
    case = Case("book", 2, 3, 5, 7, shared=True)
    for peer, dtype, work in (
        ("loops", "float16", [case.work(direction, 2) for direction in case.directions]),
        ("loops", "float32", [None] * 3),
        ("numpy", "float32", [None] * 3),
    ):
        assert [row.work for row in duel(case, "numpy", dtype, peer, 0.0).rows] == work


def test_products_of_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"N": 5, "T_ENC": 7, "T_DEC": 3, "V": 19, "D": 5, "H": 11}
    for name, value in sizes.items():
        monkeypatch.setattr(training, name, value)
    N, T_enc, T_dec, V, D, H = sizes.values()
    counting = Counting()
    step = training.products_step(counting)  # type: ignore[arg-type]
    lstms = 3 * 2 * N * (T_enc + T_dec) * (H + D) * 4 * H
    attention = 6 * 2 * N * T_dec * T_enc * H
    affine = 3 * 2 * N * T_dec * 2 * H * V
    assert counting.of(step) == lstms + attention + affine
    _, model = training.our_step(get_backend("numpy"), training.draw_batches())
    weights = 2 * (V * D + 4 * H * (D + H + 1)) + 2 * H * V + V
    assert training.work(model) == (lstms + attention + affine, 4 * 4 * weights)
