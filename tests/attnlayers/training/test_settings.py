"""What a run may be started with."""

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnlayers.training
from attnlayers.data import DataError, Vocabulary, generate_dates
from attnlayers.training import RunError, Settings
from attnlayers.training.run import fingerprint


def test_public_names() -> None:
    optimizers = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSprop", "clip_grads"]
    runs = ["Checkpoint", "Progress", "RunError", "RunFolder", "Settings", "Trainer"]
    assert sorted(attnlayers.training.__all__) == sorted(optimizers + runs)
    assert all(hasattr(attnlayers.training, name) for name in attnlayers.training.__all__)


def test_the_defaults_are_those_of_the_task() -> None:
    settings = Settings()
    assert (settings.data, settings.unit, settings.epochs, settings.batch_size) == ("dates", "character", 4, 128)
    assert (settings.embedding_size, settings.hidden_size, settings.lr, settings.max_grad_norm) == (16, 256, 0.001, 5.0)
    assert settings.reverse is True
    with pytest.raises(FrozenInstanceError):
        settings.epochs = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", ["epochs", "batch_size", "embedding_size", "hidden_size", "lr", "max_grad_norm"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_sizes_and_rates_are_positive(name: str, value: float) -> None:
    with pytest.raises(RunError, match=f"^--{name.replace('_', '-')} must be positive, got {value}$"):
        replace(Settings(), **{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "--seed must be 0 or more, got -1"),
        ({"patience": -1}, "--patience must be 0 or more, got -1"),
        ({"weight_decay": float("nan")}, "--weight-decay must be 0 or more, got nan"),
        ({"dropout": 1.0}, "--dropout must lie in [0, 1), got 1.0"),
        ({"label_smoothing": -0.1}, "--label-smoothing must lie in [0, 1), got -0.1"),
        ({"schedule": "linear"}, "--schedule must be one of constant, cosine, got 'linear'"),
        ({"split": "target"}, "--split must be one of source, book, got 'target'"),
        ({"normalize": "nfc"}, "--normalize must be one of NFC, NFKC, none, got 'nfc'"),
        ({"columns": "1"}, "--columns must be two different numbers from 1 on, as in 1,2, got 1"),
        ({"columns": "0,1"}, "--columns must be two different numbers from 1 on, as in 1,2, got 0,1"),
        ({"columns": "a,b"}, "--columns must be two different numbers from 1 on, as in 1,2, got a,b"),
        ({"unit": "letter"}, "--unit must be one of character, word, subword, got 'letter'"),
    ],
)
def test_other_values_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        Settings(**change)


def test_pairs_are_dates_of_the_seed_or_those_of_a_file(copy_task: Path) -> None:
    assert Settings(seed=3).pairs() == generate_dates(seed=3)
    lines = [tuple(line.split("\t")) for line in copy_task.read_text().splitlines()]
    assert Settings(data=str(copy_task)).pairs() == lines


def test_pairs_of_some_columns_in_a_normal_form(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("cafe\u0301\tcoffee\tCC-BY\n", encoding="utf-8")
    assert Settings(data=str(path), columns="2,1").pairs() == [("coffee", "café")]
    assert Settings(data=str(path), columns="1,3", normalize="none").pairs() == [("cafe\u0301", "CC-BY")]


RARE = "efghijklmnopqrstuvwxyzαβγδεζηθικλμνξοπρστυφχψωабвгдежзийклмнопрстуфхцчшщъыьэюя"


def test_the_vocabulary_is_that_of_the_pairs_to_learn_from(copy_task: Path) -> None:
    copy_task.write_text(copy_task.read_text() + "".join(f"{c}\t{c}\n" for c in RARE))
    settings = Settings(data=str(copy_task))
    pairs = settings.pairs()
    train, test = settings.split_pairs(pairs)
    vocabulary = settings.vocabulary(pairs)
    assert {c for place in train for c in pairs[place][0]} == set(vocabulary.names(range(4, len(vocabulary))))
    unseen = [pairs[place][0] for place in test if pairs[place][0] in RARE]
    assert unseen
    assert {vocabulary.encode(c)[0] for c in unseen} == {vocabulary.UNK}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tsv does not exist"):
        Settings(data=str(tmp_path / "gone.tsv")).pairs()


def test_the_seed_decides_the_model() -> None:
    vocabulary = Vocabulary("abc", "character")
    settings = Settings(embedding_size=4, hidden_size=8, seed=5)
    model, same, other = (s.model(vocabulary) for s in (settings, settings, replace(settings, seed=6)))
    assert [param.shape for param in model.params][:2] == [(6, 4), (4, 32)]
    for param, equal in zip(model.params, same.params, strict=True):
        np.testing.assert_array_equal(param, equal)
    assert not np.array_equal(model.params[0], other.params[0])


def test_fingerprints_tell_pairs_apart() -> None:
    pairs = [("a", "b"), ("c", "d")]
    others = [
        *(pairs[::-1], pairs[:1], [], [("a", "b"), ("c", "e")], [("b", "a"), ("c", "d")]),
        *([("ab", "c"), ("", "d")], [("ab", "cd")], [("a", "bcd")]),  # the same letters, cut elsewhere
    ]
    found = {fingerprint(some) for some in (pairs, *others)}
    assert len(found) == 1 + len(others)
    assert fingerprint(iter(pairs)) == fingerprint(pairs)
