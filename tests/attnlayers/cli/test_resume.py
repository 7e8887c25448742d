"""`attnlayers train --resume` and Ctrl-C."""

import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnbackends import get_backend
from attnlayers.training import Checkpoint, RunFolder, Trainer

Tiny = tuple[str, ...]


def checkpoint_of(path: Path) -> Checkpoint:
    checkpoint = RunFolder.open(path).read_checkpoint()
    assert checkpoint is not None
    return checkpoint


def assert_same_bits(path: Path, other: Path) -> None:
    one, two = checkpoint_of(path), checkpoint_of(other)
    for arrays, same in ((one.weights, two.weights), (one.optimizer, two.optimizer)):
        assert arrays.keys() == same.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, same[name], err_msg=name)
    times = {"seconds", "tokens_per_second"}
    for row, same_row in zip(one.progress["metrics"], two.progress["metrics"], strict=True):
        assert {key: row[key] for key in row.keys() - times} == {key: same_row[key] for key in row.keys() - times}


@pytest.fixture
def finished(trained: Any, attnlayers: Any) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(trained.path, attnlayers.cwd / "run"))


def test_a_finished_run_says_so(attnlayers: Any, finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    ended = attnlayers.train("--resume", "--out", "run")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert re.search(r"^run has finished its 1 epochs?: --resume --epochs N goes on to epoch N$", ended.stdout.strip())
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_more_epochs_are_the_same_as_all_at_once(attnlayers: Any, finished: Path, trained: Any, tiny: Tiny) -> None:
    ended = attnlayers.train("--resume", "--epochs", 2, "--out", "run")
    assert ended.returncode == 0, ended
    assert "epoch 2/2  loss" in ended.stdout
    assert "epoch 1/" not in ended.stdout
    assert RunFolder.open(finished).settings.epochs == 2
    same = ("--batch-size", 8, "--lr", 0.01, "--out", "all at once")
    assert attnlayers.train(trained.data, *tiny, *same, "--epochs", 2).returncode == 0
    assert_same_bits(finished, attnlayers.cwd / "all at once")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", 0.5], "--lr is 0.01 in the run run, got 0.5: leave it out, or start a run in another --out"),
        (["--no-reverse"], "it is --reverse in the run run, got --no-reverse: leave it out, or"),
        (["--unit", "word"], "--unit is character in the run run, got word: leave it out, or"),
    ],
)
def test_other_options_are_refused(attnlayers: Any, finished: Path, options: list[Any], message: str) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert message in attnlayers.fails("train", "--resume", "--out", "run", "--epochs", 2, *options)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_the_same_options_are_not(attnlayers: Any, finished: Path, trained: Any) -> None:
    same = ("--hidden-size", 8, "--lr", 0.01, "--reverse", "--unit", "character", "--epochs", 1)
    ended = attnlayers.train(trained.data, "--resume", "--out", "run", *same)
    assert "has finished" in ended.stdout, ended


def test_other_data_are_refused(attnlayers: Any, finished: Path, make_pairs: Callable[..., Path]) -> None:
    other = make_pairs(attnlayers.cwd / "other.tsv", 40, "{0}\t{0}{0}\n")
    message = attnlayers.fails("train", other, "--resume", "--epochs", 2, "--out", "run")
    assert message.startswith(f"{other} does not hold the pairs of ")
    assert "pairs.tsv, with which the run run began: give the file that does, or start a run in another" in message


def test_data_and_run_that_were_moved(attnlayers: Any, finished: Path, trained: Any) -> None:
    """The run goes on from where it is now, with the same pairs wherever they are."""
    config = finished / "config.json"
    config.write_text(config.read_text().replace(str(trained.data), "/gone/pairs.tsv"))
    finished.rename(attnlayers.cwd / "moved")
    lines = trained.data.read_bytes().replace(b"\n", b"\r\n")
    (attnlayers.cwd / "here.tsv").write_bytes(lines)
    goes_on = ("train", "--resume", "--epochs", 2, "--out", "moved")
    (attnlayers.cwd / "moved" / "checkpoint.safetensors").rename(attnlayers.cwd / "kept")
    message = attnlayers.fails(*goes_on)  # what cannot go on is left alone, with a checkpoint and without
    (attnlayers.cwd / "kept").rename(attnlayers.cwd / "moved" / "checkpoint.safetensors")
    assert attnlayers.fails(*goes_on) == message
    assert message.startswith("/gone/pairs.tsv does not exist")
    assert message.endswith("if it was moved, say where to with --resume --data PATH")
    ended = attnlayers.train(*goes_on[1:], "--data", "here.tsv")
    assert ended.returncode == 0, ended
    assert RunFolder.open(attnlayers.cwd / "moved").settings.data == str(attnlayers.cwd / "here.tsv")
    message = attnlayers.fails("train", "--data", "here.tsv", "--out", "other")
    assert message == "--data tells where the data of a run are now: give it with --resume and without other data"


def test_patience_may_change_and_says_what_goes_on(attnlayers: Any, finished: Path) -> None:
    ended = attnlayers.train("--resume", "--out", "run", "--epochs", 9, "--patience", 1, before=WORSE)
    assert ended.returncode == 0, ended
    expected = (
        "run has stopped after epoch 2: the held-out loss was lowest in epoch 1; --resume --patience N, with N larger"
    )
    assert expected in ended.stdout
    assert "run: weights of epoch 1, " in ended.stdout
    assert expected in attnlayers("train", "--resume", "--out", "run").stdout
    assert RunFolder.open(finished).settings.patience == 1


WORSE = """
from attnlayers.training import evaluation
batches = evaluation.Evaluation.batches
def worse(self, size):
    yield from batches(self, size)
    self.loss += 100
evaluation.Evaluation.batches = worse
"""


def test_a_folder_that_is_no_run(attnlayers: Any) -> None:
    assert attnlayers.fails("train", "--resume", "--out", "gone") == "there is no run folder gone"


def test_data_that_changed(attnlayers: Any, finished: Path, trained: Any) -> None:
    data = Path(shutil.copy(trained.data, attnlayers.cwd / "own.tsv"))
    config = finished / "config.json"
    config.write_text(config.read_text().replace(str(trained.data), str(data)))
    data.write_text(data.read_text() + "ab\tba\n")
    message = attnlayers.fails("train", "--resume", "--epochs", 2, "--out", "run")
    assert message == f"{data} has changed since the run run began: start a new one"
    data.unlink()
    assert "own.tsv does not exist" in attnlayers.fails("train", "--resume", "--epochs", 2, "--out", "run")
    assert attnlayers("translate", "run", "ab").returncode == 0, "answers need no data"


def test_a_truncated_checkpoint(attnlayers: Any, finished: Path) -> None:
    path = finished / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = attnlayers.fails("train", "--resume", "--epochs", 2, "--out", "run")
    assert message.startswith("run/checkpoint.safetensors is truncated or no safetensors file")


UNDER_WAY = """
import time
import attnlayers.models as models
forward, count = models.AttentionSeq2seq.forward, [0]
def step(*arguments):
    count[0] += 1
    if count[0] == 30:
        print("under way", flush=True)
    if count[0] >= 30:
        time.sleep(0.05)  # or all is over before the signal comes
    return forward(*arguments)
models.AttentionSeq2seq.forward = step
"""

AT_THE_FIRST_LINE = """
import os, signal
from attnlayers.training import Trainer
begin = Trainer.__init__
def begin_and_interrupt(*arguments, **options):
    begin(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
Trainer.__init__ = begin_and_interrupt
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_saves_and_says_how_to_go_on(
    attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_pairs(attnlayers.cwd / "pairs.tsv", 1000)
    process = attnlayers.start("train", data, *tiny, "--batch-size", 5, "--out", "run", before=UNDER_WAY)
    while process.stdout.readline() != "under way\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (said, errors)
    assert errors == ""
    run = RunFolder.open(attnlayers.cwd / "run")
    assert 30 <= checkpoint_of(run.path).progress["batch"] < 180

    program, *arguments = command_of(said)
    assert program == "attnlayers"
    ended = attnlayers(*arguments)
    assert ended.returncode == 0, ended
    assert "run: weights of epoch 1, metrics.csv, training.png, attention.png" in ended.stdout

    undisturbed = RunFolder.create(attnlayers.cwd / "undisturbed", run.settings, run.pairs(), run.vocabulary)
    monkeypatch.setattr(RunFolder, "write_figure", lambda *arguments: None)
    monkeypatch.setattr("attnbackends.backend", get_backend("numpy"))
    assert [*Trainer(undisturbed).steps()]
    assert_same_bits(run.path, undisturbed.path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
@pytest.mark.parametrize(
    "name", ["run", "a run in a folder with a name that makes the line with the command longer than 80 characters"]
)
def test_ctrl_c_before_the_first_step(attnlayers: Any, pairs: Path, tiny: Tiny, name: str) -> None:
    ended = attnlayers("train", pairs, *tiny, "--out", name, before=AT_THE_FIRST_LINE)
    assert ended.returncode == 130, ended
    assert "Traceback" not in ended.stderr
    assert command_of(ended.stdout) == ["attnlayers", "train", "--resume", "--out", name]
    assert attnlayers.train("--resume", "--out", name).returncode == 0


def command_of(said: str) -> list[str]:
    """The command that goes on with a run that was stopped."""
    lines = [line.partition("go on with: ")[2] for line in said.splitlines() if "go on with: " in line]
    assert len(lines) == 1, said
    return shlex.split(lines[0])
