"""Times and speeds, on a clock that a test sets: a step takes a second, everything else no time."""

from collections.abc import Callable

import pytest

from attnlayers.models import AttentionSeq2seq
from attnlayers.training import RunFolder, Trainer

Begin = Callable[..., RunFolder]

pytestmark = pytest.mark.usefixtures("small_pictures", "clock")

BATCHES = 54
NEVER = 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now, forward = [100.0], AttentionSeq2seq.forward

    def step(model: AttentionSeq2seq, *arguments: object) -> object:
        now[0] += model.training
        return forward(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(AttentionSeq2seq, "forward", step)
    monkeypatch.setattr("attnlayers.training.trainer.perf_counter", lambda: now[0])


def speeds(trainer: Trainer) -> list[float]:
    return [row["tokens_per_second"] for row in trainer.metrics if row["tokens_per_second"] is not None]


def undisturbed(begin: Begin, epochs: int = 1) -> Trainer:
    trainer = Trainer(begin("undisturbed", batch_size=5, epochs=epochs), checkpoint_seconds=NEVER)
    assert [*trainer.steps()]
    assert trainer.batches == BATCHES
    return trainer


def test_seconds_are_those_of_the_steps(begin: Begin) -> None:
    trainer = undisturbed(begin, epochs=2)
    assert [row["step"] for row in trainer.metrics] == [20, 40, 54, 54, 74, 94, 108, 108]
    assert [row["seconds"] for row in trainer.metrics] == [20, 40, 54, 54, 74, 94, 108, 108]
    tokens = sum(length + 1 for length in map(len, (target for _, target in trainer.train.pairs)))
    per_epoch = [20 * a + 20 * b + 14 * c for a, b, c in (speeds(trainer)[:3], speeds(trainer)[3:])]
    assert per_epoch == pytest.approx([tokens, tokens])


def test_time_left_is_that_of_the_steps_to_come(begin: Begin) -> None:
    for progress in Trainer(begin(batch_size=5), checkpoint_seconds=NEVER).steps():
        steps = (progress.epoch - 1) * BATCHES + (progress.done if progress.phase == "train" else BATCHES)
        if progress.seconds_left is not None:
            assert progress.seconds_left == pytest.approx(2 * BATCHES - steps)


@pytest.mark.parametrize("seconds", [0, 7, 33])
def test_checkpoints_do_not_change_the_speed(begin: Begin, seconds: float) -> None:
    expected = undisturbed(begin)
    trainer = Trainer(begin("with checkpoints", batch_size=5, epochs=1), checkpoint_seconds=seconds)
    assert [*trainer.steps()]
    assert [row["seconds"] for row in trainer.metrics] == [row["seconds"] for row in expected.metrics]
    assert speeds(trainer) == pytest.approx(speeds(expected))


@pytest.mark.parametrize("stop", [1, 20, 33])
def test_a_stop_does_not_change_the_speed(begin: Begin, stop: int) -> None:
    expected = undisturbed(begin)
    run = begin("stopped", batch_size=5, epochs=1)
    trainer = Trainer(run, checkpoint_seconds=NEVER)
    steps = trainer.steps()
    for _ in range(stop):
        next(steps)
    trainer.save()
    trainer = Trainer(run, checkpoint_seconds=NEVER)
    assert [*trainer.steps()]
    assert [row["seconds"] for row in trainer.metrics] == [row["seconds"] for row in expected.metrics]
    assert speeds(trainer) == pytest.approx(speeds(expected))


def test_time_left_with_checkpoints(begin: Begin) -> None:
    for progress in Trainer(begin(batch_size=5), checkpoint_seconds=7).steps():
        steps = (progress.epoch - 1) * BATCHES + (progress.done if progress.phase == "train" else BATCHES)
        if progress.seconds_left is not None:
            assert progress.seconds_left == pytest.approx(2 * BATCHES - steps, rel=0.05, abs=1)
