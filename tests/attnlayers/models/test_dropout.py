"""Dropout and smoothing in the networks: what is drawn is a function of what `reseed` is given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attnbackends import get_backend
from attnlayers import Dropout
from attnlayers.models import AttentionSeq2seq, Transformer, Translator

NUMPY = get_backend("numpy")
RNG = np.random.default_rng(0)
BATCH = RNG.integers(3, 13, (5, 7)), RNG.integers(3, 13, (5, 3)), RNG.integers(3, 13, (5, 3))
Make = Callable[..., Translator]


def seq2seq(**options: Any) -> Translator:
    return AttentionSeq2seq(13, 6, 11, backend=NUMPY, seed=3, **options)


def transformer(**options: Any) -> Translator:
    return Transformer(13, 8, 2, 11, 2, backend=NUMPY, seed=3, **options)


both = pytest.mark.parametrize("make", [seq2seq, transformer])


def loss_of(model: Translator) -> float:
    return float(model.forward(*BATCH))


@both
def test_the_same_numbers_drop_the_same(make: Make) -> None:
    model = make(dropout=0.4)
    losses = []
    for seed in ((7, 1), (7, 2), (8, 1), (7, 1)):
        model.reseed(*seed)
        losses.append(loss_of(model))
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3
    assert loss_of(model) != losses[3], "it draws on"


@both
def test_evaluation_and_answers_drop_nothing(make: Make) -> None:
    model, plain = make(dropout=0.4, label_smoothing=0.3), make()
    for one, two in zip(model.params, plain.params, strict=True):
        np.testing.assert_array_equal(one, two)
    ids, _ = model.generate(BATCH[0], 1, 2, 9)
    np.testing.assert_array_equal(ids, plain.generate(BATCH[0], 1, 2, 9)[0])
    assert loss_of(model) != loss_of(plain), "answering does not switch training off"
    model.training = False
    assert loss_of(model) == loss_of(plain)
    model.training = True
    assert loss_of(model) != loss_of(plain)


@both
def test_gradients_with_dropout_and_smoothing(make: Make) -> None:
    """Against differences along one direction, with what is dropped held still."""
    model = make(dropout=0.3, label_smoothing=0.2, dtype="float64")
    state = model.state()
    rng = np.random.default_rng(1)
    direction = {name: rng.standard_normal(value.shape) for name, value in state.items()}

    def loss_at(step: float) -> float:
        model.load_state({name: value + step * direction[name] for name, value in state.items()})
        model.reseed(5)
        return loss_of(model)

    difference = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
    loss_at(0.0)
    model.backward()
    slope = sum(float(np.sum(grad * direction[name])) for name, grad in zip(model.names, model.grads, strict=True))
    assert slope == pytest.approx(difference, rel=1e-5)


@both
def test_no_two_places_drop_alike(make: Make) -> None:
    model = make(dropout=0.5)
    model.reseed(1)
    seeds = []

    def collect(layer: object) -> None:
        if isinstance(layer, Dropout):
            seeds.append(layer._seed)
        elif hasattr(layer, "heads"):
            seeds.append(layer.seed)  # type: ignore[attr-defined]
        for inner in getattr(layer, "layers", {}).values():
            collect(inner)

    collect(model)
    assert len(seeds) == len(set(seeds)) >= 3
