"""A training: that it learns, what it tells, and what it leaves."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sacrebleu.metrics import CHRF
from support import Library

from attnlayers.data import DataError
from attnlayers.models import AttentionSeq2seq
from attnlayers.training import Adam, Progress, RunError, RunFolder, Trainer
from attnlayers.training.evaluation import Evaluation, exact_matches
from attnlayers.training.run import METRICS
from attnlayers.training.trainer import REPORT_EVERY

Begin = Callable[..., RunFolder]


def table(run: RunFolder) -> list[dict[str, str]]:
    with Path(run.path, "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.parametrize("reverse", [True, False])
def test_it_learns(begin: Begin, reverse: bool) -> None:
    trainer = Trainer(begin(epochs=8, embedding_size=8, hidden_size=24, reverse=reverse))
    for _ in trainer.steps():
        pass
    losses = [row["loss"] for row in trainer.metrics]
    assert losses[-1] < losses[0] / 4
    assert trainer.accuracy is not None
    assert trainer.accuracy > 0.15  # of words that it has never met


def test_it_leaves_tables_and_pictures(begin: Begin) -> None:
    run = begin(epochs=1, hidden_size=8)
    *_, last = Trainer(run).steps()
    rows = table(run)
    assert [*rows[0]] == [*METRICS]
    batches = ceil(270 / 12)
    assert [int(row["step"]) for row in rows] == [20, batches, batches]
    assert [bool(row["loss"]) for row in rows] == [True, True, True]
    assert [bool(row["held_out_loss"]) for row in rows] == [False, False, True]
    assert [bool(row["chrf"]) for row in rows] == [False, False, True]
    assert [bool(row["tokens_per_second"]) for row in rows] == [True, True, False]
    assert [bool(row["accuracy"]) for row in rows] == [False, False, True]
    assert float(rows[-1]["accuracy"]) == last.accuracy
    assert {row["epoch"] for row in rows} == {"1"}
    for name in ("training.png", "attention.png"):
        with Image.open(run.path / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 400, name
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        *("config.json", "vocabulary.json", "checkpoint.safetensors", "weights.safetensors"),
        *("metrics.csv", "training.png", "attention.png"),
    }


@pytest.mark.usefixtures("small_pictures")
def test_progress(begin: Begin) -> None:
    trainer = Trainer(begin(epochs=3))
    seen = [*trainer.steps()]
    batches, tests = ceil(270 / 12), ceil(30 / 12)
    phases = [(epoch, phase, [p.done for p in some]) for (epoch, phase), some in groupby(seen, _epoch_and_phase)]
    assert phases == [
        expected
        for epoch in (1, 2, 3)
        for expected in (
            (epoch, "train", [*range(1, batches + 1)]),
            (epoch, "evaluate", [*range(1, tests + 1)]),
            (epoch, "epoch", [batches]),
        )
    ]
    assert {(p.phase, p.total) for p in seen} == {("train", batches), ("evaluate", tests), ("epoch", batches)}
    assert {p.epochs for p in seen} == {3}
    for p in seen:
        reported = p.epoch > 1 or p.phase != "train" or p.done >= REPORT_EVERY
        evaluated = p.epoch > 1 or p.phase == "epoch"
        assert (p.loss is not None) == reported
        assert (p.tokens_per_second is not None) == reported
        assert (p.seconds_left is not None) == reported
        for value in (p.accuracy, p.held_out_loss, p.chrf, p.best):
            assert (value is not None) == evaluated
        assert p.seconds_left is None or p.seconds_left >= 0
        assert p.tokens_per_second is None or p.tokens_per_second > 0
        assert p.accuracy is None or 0 <= p.accuracy <= 1
    assert trainer.finished
    assert [*trainer.steps()] == []


def _epoch_and_phase(progress: Progress) -> tuple[int, str]:
    return progress.epoch, progress.phase


@pytest.mark.usefixtures("small_pictures")
def test_loss_is_the_mean_for_each_token(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(epochs=1)
    losses, forward = [], AttentionSeq2seq.forward

    def listen(model: AttentionSeq2seq, sources: Any, inputs: Any, labels: Any, mask: Any) -> Any:
        loss = forward(model, sources, inputs, labels, mask)
        if model.training:
            losses.append((float(loss), int(np.sum(labels != -1))))
        return loss

    monkeypatch.setattr(AttentionSeq2seq, "forward", listen)
    trainer = Trainer(run)
    assert [*trainer.steps()]
    reported = [row["loss"] for row in trainer.metrics]
    for value, some in zip(reported, (losses[:REPORT_EVERY], losses[REPORT_EVERY:], losses), strict=True):
        assert value == pytest.approx(sum(loss * n for loss, n in some) / sum(n for _, n in some), rel=1e-5)


@pytest.mark.usefixtures("small_pictures")
def test_gradients_are_clipped(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    norms, update = [], Adam.update

    def listen(optimizer: Adam, params: list[Any], grads: list[Any]) -> None:
        norms.append(np.sqrt(sum(np.sum(grad.astype(np.float64) ** 2) for grad in grads)))
        update(optimizer, params, grads)

    monkeypatch.setattr(Adam, "update", listen)
    assert [*Trainer(begin(epochs=1, max_grad_norm=0.01)).steps()]
    assert norms == pytest.approx([0.01] * 23, rel=1e-3)


@pytest.mark.parametrize(
    ("ids", "labels", "expected"),
    [
        ([[5, 6, 2]], [[5, 6, 2]], 1),
        ([[5, 6, 2]], [[5, 7, 2]], 0),
        ([[5, 6, 7]], [[5, 6, 2]], 0),  # not ended where it should
        ([[5, 2, 9]], [[5, 6, 2]], 0),  # ended too early
        ([[5, 2, 9, 9]], [[5, 2, -1, -1]], 1),  # what comes after the end does not count
        ([[5, 2]], [[5, 2, -1, -1]], 1),  # answers are shorter than the longest label
        ([[5, 6]], [[5, 6, 2]], 0),  # cut off before the end
        ([[5, 6, 2, 8]], [[5, 6, 2]], 1),
        ([[5, 6, 2], [5, 2, 0], [2, 0, 0]], [[5, 6, 2], [6, 2, -1], [2, -1, -1]], 2),
    ],
)
def test_exact_matches_by_hand(ids: list[list[int]], labels: list[list[int]], expected: int) -> None:
    assert exact_matches(np.array(ids), np.array(labels)) == expected


@pytest.mark.usefixtures("small_pictures")
def test_accuracy_is_the_share_of_right_answers(begin: Begin) -> None:
    from attnlayers.translation import translate

    run = begin(epochs=8, embedding_size=8, hidden_size=24)
    trainer = Trainer(run)
    assert [*trainer.steps()]
    texts = [source for source, _ in trainer.test.pairs]
    answers = translate(trainer.model, run.vocabulary, texts, reverse=True)
    right = sum(answer.text == target for answer, (_, target) in zip(answers, trainer.test.pairs, strict=True))
    assert trainer.accuracy == right / len(texts)
    assert 0 < right < len(texts), "the test says little if all or none are right"
    other = Evaluation(trainer.model, trainer.test, free_text=True)
    assert [*other.batches(4)] == [*range(1, trainer.test.num_batches(4) + 1)]
    assert other.accuracy == right / len(texts)
    assert other.loss == pytest.approx(trainer.metrics[-1]["held_out_loss"], rel=1e-5)
    expected = CHRF().corpus_score([answer.text for answer in answers], [[target for _, target in trainer.test.pairs]])
    assert other.chrf == pytest.approx(expected.score)
    assert Evaluation(trainer.model, trainer.test, free_text=False).chrf is None


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(begin: Begin, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    run = begin()
    trainer = Trainer(run)
    steps = trainer.steps()
    for _ in range(5):
        next(steps)
    trainer.save()
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    state = trainer.model.state()
    trainer.model.load_state(state | {"decoder.affine.b": np.full_like(state["decoder.affine.b"], value)})
    with pytest.raises(RunError, match=r"^the loss became nan in epoch 1: start again with a smaller --lr$"):
        next(step for step in steps if step.phase == "epoch")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_loss_that_is_no_number_is_not_saved(begin: Begin) -> None:
    run = begin()
    trainer = Trainer(run, checkpoint_seconds=0)
    steps = trainer.steps()
    for _ in range(5):
        next(steps)
    state = trainer.model.state()
    trainer.model.load_state({name: np.full_like(value, np.nan) for name, value in state.items()})
    with pytest.raises(RunError, match="smaller --lr"):
        next(step for step in steps if step.phase == "epoch")
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    assert all(np.all(np.isfinite(value)) for value in checkpoint.weights.values())


@pytest.mark.usefixtures("small_pictures")
def test_every_library(library: Library, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for i, backend in enumerate((library.backend, None)):
        with monkeypatch.context() as patch:
            if backend is not None:
                patch.setattr("attnbackends.backend", backend)
            trainer = Trainer(begin(f"run{i}", epochs=1, batch_size=60))
            assert [p.phase for p in trainer.steps()][-1] == "epoch"
        losses.append(trainer.metrics[0]["loss"])
        checkpoint = trainer.run.read_checkpoint()
        assert checkpoint is not None
        assert checkpoint.progress["optimizer_steps"] == 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.usefixtures("small_pictures")
def test_the_weights_of_the_best_epoch_are_kept(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that a test sets: the second epoch is the best, and with patience the fourth is the last."""
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    batches = Evaluation.batches

    def set_loss(evaluation: Evaluation, size: int) -> Iterator[int]:
        yield from batches(evaluation, size)
        evaluation.loss = next(losses)

    monkeypatch.setattr(Evaluation, "batches", set_loss)
    run = begin(epochs=9, patience=2)
    trainer = Trainer(run)
    states = [trainer.model.state() for progress in trainer.steps() if progress.phase == "epoch"]
    assert len(states) == 4
    assert (trainer.best, trainer.finished, trainer.exhausted) == (2, True, True)
    for name, value in run.load_model().state().items():
        np.testing.assert_array_equal(value, states[1][name])
    assert Trainer(RunFolder.open(run.path)).finished
    run.write_config(replace(run.settings, patience=3, epochs=5))
    again = Trainer(run)
    assert [progress.best for progress in again.steps() if progress.phase == "epoch"] == [5]
    assert again.finished
    assert not again.exhausted


@pytest.mark.usefixtures("small_pictures")
def test_held_out_loss_is_without_dropout_and_smoothing(begin: Begin) -> None:
    run = begin(epochs=1, dropout=0.5, label_smoothing=0.3)
    trainer = Trainer(run)
    assert [*trainer.steps()]
    plain = replace(run.settings, dropout=0.0, label_smoothing=0.0).model(run.vocabulary)
    plain.load_state(run.load_model().state())
    total = sum(
        float(plain.forward(b.sources, b.inputs, b.labels, b.source_mask)) * b.num_tokens
        for b in trainer.test.batches(5)
    )
    tokens = sum(len(target) + 1 for _, target in trainer.test.pairs)
    assert trainer.metrics[-1]["held_out_loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert trainer.model.training


@pytest.mark.usefixtures("small_pictures")
def test_long_pairs_are_left_out(begin: Begin) -> None:
    run = begin(max_length=2, epochs=1)
    trainer = Trainer(run)
    long = sum(len(source) > 2 for source, _ in run.pairs())
    assert 0 < trainer.left_out == long
    assert len(trainer.train) + len(trainer.test) == 300 - long
    assert max(len(source) for source, _ in trainer.train.pairs + trainer.test.pairs) == 2
    Path(run.settings.data).write_text("abc\tabc\nbca\tbca\n" * 5)
    other = begin("other", max_length=2)
    with pytest.raises(DataError, match=r"^--max-length 2 leaves too few pairs: the shortest has 3 tokens$"):
        Trainer(other)


def test_no_source_is_learned_from_and_held_out(begin: Begin) -> None:
    trainer = Trainer(begin())
    assert not {source for source, _ in trainer.train.pairs} & {source for source, _ in trainer.test.pairs}
    book = Trainer(begin("book", split="book"))
    assert {source for source, _ in book.train.pairs} & {source for source, _ in book.test.pairs}
