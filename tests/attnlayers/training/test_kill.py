"""A run that is killed at any moment: what it leaves is whole, and going on reaches the same bits."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
from PIL import Image
from safetensors.numpy import load_file
from support import ROOT, search_path

from attnlayers.training import RunFolder, Trainer
from attnlayers.training.run import METRICS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

CODE = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from attnlayers.training import RunFolder, Trainer, trainer

for name in ("training_figure", "attention_figure"):  # small, for speed
    setattr(trainer, name, lambda *data: Figure(figsize=(0.1, 0.1)))
for progress in Trainer(RunFolder.open(Path(sys.argv[1])), checkpoint_seconds=0).steps():
    print(progress.phase, flush=True)
"""


def start(run: RunFolder) -> "subprocess.Popen[str]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ATTN_")}
    environ = inherited | {"PYTHONPATH": search_path(ROOT / "src", ROOT / "backends")}
    command = [sys.executable, "-c", CODE, str(run.path)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def assert_whole(run: RunFolder) -> None:
    """Every file that has its name can be read to its end; what was under way is hidden."""
    again = RunFolder.open(run.path)
    assert again.settings == run.settings
    for path in run.path.iterdir():
        if path.name.startswith("."):
            assert ".part" in path.name
        elif path.suffix == ".json":
            assert json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            assert load_file(path)
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                rows = [*csv.reader(file)]
            assert rows[0] == [*METRICS]
            assert {len(row) for row in rows} == {len(METRICS)}
            assert path.read_bytes().endswith(b"\n")
        else:
            with Image.open(path) as image:
                image.load()


def final(run: RunFolder) -> dict[str, object]:
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    metrics = [line.split(",")[:6] for line in Path(run.path, "metrics.csv").read_text().splitlines()]
    arrays = checkpoint.weights | checkpoint.optimizer
    return {name: array.tobytes() for name, array in arrays.items()} | {"metrics": metrics}


@pytest.mark.usefixtures("small_pictures")
def test_killed_again_and_again(begin: Callable[..., RunFolder]) -> None:
    options = {"epochs": 3, "dropout": 0.2, "schedule": "cosine", "warmup": 5, "weight_decay": 0.1, "patience": 3}
    expected = begin("undisturbed", **options)
    assert [*Trainer(expected).steps()]
    run, rng, kills = begin("killed", **options), random.Random(0), 0
    for _ in range(6):
        process = start(run)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 12)):
            process.stdout.readline()
        sleep(rng.random() * 0.02)  # somewhere between two steps, most of which goes to writing
        process.kill()
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
        assert_whole(run)
    assert kills >= 3, "the test says little if the run ends before it is killed"
    process = start(run)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_whole(run)
    assert Trainer(RunFolder.open(run.path)).finished
    assert final(run) == final(expected)


@pytest.mark.usefixtures("small_pictures")
def test_what_a_kill_left_half_written_goes_away(begin: Callable[..., RunFolder]) -> None:
    run = begin()
    for name in (".a1b2c3.part.safetensors", ".xyz.part.csv"):
        (run.path / name).write_bytes(b"half of it")
    assert [*Trainer(run).steps()]
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


def test_killed_before_the_folder_was_complete(begin: Callable[..., RunFolder]) -> None:
    run = begin()
    (run.path / "config.json").unlink()  # the last file that `create` writes
    assert begin().settings == run.settings
    assert RunFolder.open(run.path).settings == run.settings
