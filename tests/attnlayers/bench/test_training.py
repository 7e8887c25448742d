"""The training step: PyTorch's model is ours."""

import pytest

from attnbackends import get_backend
from attnlayers.bench import training


def test_losses_agree_and_both_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for name, value in {"N": 5, "H": 11, "T_ENC": 7, "T_DEC": 3}.items():
        monkeypatch.setattr(training, name, value)
    outcome = training.duel_of_steps("numpy", 0.0)
    assert outcome.wrong == outcome.left_out == {}
    (row,) = outcome.rows
    assert (row.case, row.direction, row.contender) == ("training", "step", "PyTorch")
    assert row.difference < 1e-4
    assert row.products is not None
    assert len(row.ours) == len(row.theirs) == len(row.products) == 5


def test_gates_and_biases() -> None:
    _, model = training.our_step(get_backend("numpy"), training.draw_batches())
    weights = model.state()
    weights["encoder.lstm.b"][:] = range(4 * training.H)
    state = training.torch_weights(weights)
    H = training.H
    assert state["encoder_lstm.bias_ih_l0"][[0, H, 2 * H, 3 * H]].tolist() == [2 * H, 0, H, 3 * H]
    assert not state["encoder_lstm.bias_hh_l0"].any()
