"""A run that was stopped reaches bit for bit what an undisturbed one reaches."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnbackends import get_backend
from attnbackends._cpu.threads import Workers
from attnlayers.training import Progress, RunError, RunFolder, Trainer

Begin = Callable[..., RunFolder]

pytestmark = pytest.mark.usefixtures("small_pictures")

EPOCH = [*(("train", i) for i in range(1, 24)), *(("evaluate", i) for i in range(1, 4)), ("epoch", 23)]
"""What is yielded in an epoch of 23 batches and 3 batches of held-out pairs."""


def bits(run: RunFolder) -> dict[str, Any]:
    """All that a run leaves and that does not tell the time."""
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    arrays = checkpoint.weights | {f"optimizer {name}": array for name, array in checkpoint.optimizer.items()}
    found: dict[str, Any] = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    rows = [line.split(",")[:6] for line in Path(run.path, "metrics.csv").read_text().splitlines()]
    counts = {
        name: checkpoint.progress[name] for name in ("epoch", "batch", "optimizer_steps", "loss_sum", "tokens", "best")
    }
    weights = Path(run.path, "weights.safetensors").read_bytes()
    return found | counts | {"metrics": rows, "weights.safetensors": weights}


def finish(run: RunFolder) -> dict[str, Any]:
    trainer = Trainer(RunFolder.open(run.path))
    for _ in trainer.steps():
        pass
    assert trainer.finished
    return bits(run)


def leave_at(run: RunFolder, place: int, *, save: bool) -> Progress:
    """Train up to a place in what is yielded, leave the loop there, and save if asked to."""
    trainer = Trainer(RunFolder.open(run.path))
    steps = trainer.steps()
    for _ in range(place):
        next(steps)
    progress = next(steps)
    if save:
        trainer.save()
    return progress


@pytest.fixture
def begin(begin: Begin) -> Begin:
    """Runs in which something is drawn at every step."""
    drawn = {"dropout": 0.2, "label_smoothing": 0.1, "weight_decay": 0.1}
    return lambda name="run", **changes: begin(name, **(drawn | changes))


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def undisturbed(begin: Begin, kept: dict[str, Any]) -> dict[str, Any]:
    """What a run reaches without a stop, found out once."""
    return kept or kept.update(finish(begin("undisturbed"))) or kept


@pytest.fixture
def names() -> Iterator[str]:
    return (f"stopped {i}" for i in range(1000))


def test_the_same_run_twice_is_the_same(begin: Begin, undisturbed: dict[str, Any]) -> None:
    assert finish(begin("again")) == undisturbed
    other = finish(begin("other", seed=7))
    assert all(other[name] != value for name, value in undisturbed.items() if name.endswith(".W"))


def test_what_is_yielded(begin: Begin) -> None:
    assert [(p.phase, p.done) for p in Trainer(begin()).steps()] == EPOCH * 2


@pytest.mark.parametrize(
    ("epoch", "phase", "done"),
    [
        (1, "train", 1),  # the first step
        (1, "train", 7),  # between two reports
        (1, "train", 20),  # a report
        (1, "train", 23),  # the last batch
        (1, "evaluate", 1),
        (1, "evaluate", 3),
        (1, "epoch", 23),
        (2, "train", 1),
        (2, "train", 21),
        (2, "evaluate", 2),
        (2, "epoch", 23),  # the end of it all
    ],
)
@pytest.mark.parametrize("save", [True, False], ids=["saved", "not saved"])
def test_stopped_once(begin: Begin, undisturbed: dict[str, Any], epoch: int, phase: str, done: int, save: bool) -> None:
    run = begin("stopped")
    place = (epoch - 1) * len(EPOCH) + EPOCH.index((phase, done))
    progress = leave_at(run, place, save=save)
    assert (progress.epoch, progress.phase, progress.done) == (epoch, phase, done)
    assert finish(run) == undisturbed


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=st.lists(st.tuples(st.integers(0, len(EPOCH)), st.booleans()), min_size=2, max_size=4))
def test_stopped_again_and_again(
    begin: Begin, undisturbed: dict[str, Any], names: Iterator[str], pauses: list[tuple[int, bool]]
) -> None:
    run = begin(next(names))
    for place, save in pauses:
        try:
            leave_at(run, place, save=save)
        except StopIteration:  # it was nearer to its end than that
            assert Trainer(RunFolder.open(run.path)).finished
    assert finish(run) == undisturbed


def test_stopped_after_every_step(begin: Begin, undisturbed: dict[str, Any]) -> None:
    run = begin("stopped")
    stops = 0
    while not Trainer(RunFolder.open(run.path)).finished:
        leave_at(run, 0, save=True)
        stops += 1
        # An evaluation that was stopped begins again, so let it through.
        checkpoint = run.read_checkpoint()
        assert checkpoint is not None
        if checkpoint.progress["batch"] == 23:
            leave_at(run, 3, save=False)
    assert stops == 2 * 23
    assert finish(run) == undisturbed


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_the_time_between_checkpoints_changes_nothing(
    begin: Begin, undisturbed: dict[str, Any], seconds: float
) -> None:
    run = begin("other")
    assert [*Trainer(run, checkpoint_seconds=seconds).steps()]
    assert bits(run) == undisturbed


def test_a_checkpoint_in_time(begin: Begin, undisturbed: dict[str, Any]) -> None:
    run = begin("stopped")
    steps = Trainer(run, checkpoint_seconds=0).steps()
    for _ in range(12):
        next(steps)
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.progress["batch"] == 12
    assert finish(run) == undisturbed


def test_more_epochs(begin: Begin, undisturbed: dict[str, Any]) -> None:
    run = begin("short", epochs=1)
    first = finish(run)
    assert first["epoch"] == 1
    assert finish(run) == first  # nothing left to do
    run.write_config(replace(run.settings, epochs=2))
    assert finish(run) == undisturbed


def test_more_epochs_of_a_run_that_was_stopped(begin: Begin, undisturbed: dict[str, Any]) -> None:
    run = begin("short", epochs=1)
    leave_at(run, 9, save=True)
    run.write_config(replace(run.settings, epochs=2))
    assert finish(run) == undisturbed


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_full_disk_on_the_way(
    begin: Begin, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    run = begin("stopped")
    from safetensors.numpy import save

    calls = []

    def fill(*arguments: Any) -> bytes:
        calls.append(arguments)
        if len(calls) == count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("attnlayers.training.run.save", fill)
        with pytest.raises(RunError, match="No space left on device; what stood there is untouched"):
            finish(run)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]
    assert finish(run) == undisturbed


def test_the_number_of_threads_changes_nothing(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, results = get_backend("numpy"), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(numpy, "workers", Workers(threads))
        run = begin(f"{threads} threads", hidden_size=96, batch_size=90, epochs=1)
        assert len(numpy.chunks(run.settings.hidden_size, 4 * 4 * 4 * run.settings.hidden_size)) > 1
        leave_at(run, 1, save=True)
        monkeypatch.setattr(numpy, "workers", Workers(1))
        results.append(finish(run))
    assert results[1] == results[0]
    assert results[2] == results[0]
