"""A disk that is full for real: a limit on the size of files, in a process of its own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import output_of

from attnlayers.training import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")

NAMES = ["config.json", "checkpoint.safetensors", "weights.safetensors", "metrics.csv", "training.png"]

CODE = """
import json, resource
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from attnlayers.training import Checkpoint, RunError, RunFolder

run = RunFolder.open(Path({path!r}))
figure = Figure()
figure.add_subplot().plot([1, 2], [3, 4])
row = dict.fromkeys(("epoch", "step", "loss", "accuracy", "tokens_per_second", "seconds"), 1)
arrays = {{"a": np.ones(1000)}}
writers = {{
    "config.json": lambda: run.write_config(replace(run.settings, epochs=99)),
    "checkpoint.safetensors": lambda: run.write_checkpoint(Checkpoint(arrays, arrays, {{}})),
    "weights.safetensors": lambda: run.write_weights(arrays),
    "metrics.csv": lambda: run.write_metrics([row] * 100),
    "training.png": lambda: run.write_figure("training.png", figure),
}}
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
errors = {{}}
for name, write in writers.items():
    try:
        write()
    except RunError as error:
        errors[name] = str(error)
print(json.dumps(errors))
"""


@pytest.fixture
def run(begin: Callable[..., RunFolder]) -> RunFolder:
    run = begin()
    for name in NAMES[1:]:
        (run.path / name).write_text("old")
    return run


def test_every_kind_of_file_survives(run: RunFolder) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert set(NAMES) <= before.keys()
    errors = json.loads(output_of(CODE.format(path=str(run.path))))
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    assert [*errors] == NAMES
    for name, message in errors.items():
        assert message.startswith(f"{Path(run.path, name)} cannot be written: ")
        assert "File too large" in message
        assert message.endswith("; what stood there is untouched")
        assert "\n" not in message
