"""Arrays of a run: written, read, and refused where they are not those of the run."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from attnlayers.training import Adam, Checkpoint, RunError, RunFolder, Trainer
from attnlayers.training.run import METRICS

Begin = Callable[..., RunFolder]


@pytest.fixture
def run(begin: Begin) -> RunFolder:
    """A run with weights and a checkpoint after one step."""
    run = begin()
    trainer = Trainer(run)
    next(trainer.steps())
    trainer.save()
    run.write_weights(trainer.model.state())
    return run


def test_a_checkpoint_is_read_as_it_was_written(begin: Begin) -> None:
    run = begin()
    rng = np.random.default_rng(0)
    weights = {"encoder.embed.W": rng.standard_normal((3, 5)).astype(np.float32), "b": np.zeros((0, 2))}
    optimizer = {"m.0": rng.standard_normal((3, 5)), "m.10": np.array(3.0), "v.0": np.ones((5, 3)).T[:, ::2]}
    progress = {"epoch": 3, "loss_sum": 0.1 + 0.2, "metrics": [{"loss": None, "step": 1}], "text": "日本\n"}
    run.write_checkpoint(Checkpoint(weights, optimizer, progress))
    found = run.read_checkpoint()
    assert found is not None
    assert found.progress == progress
    for given_arrays, read in ((weights, found.weights), (optimizer, found.optimizer)):
        assert read.keys() == given_arrays.keys()
        for name, array in given_arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def test_weights_are_those_of_the_model(run: RunFolder) -> None:
    trainer = Trainer(run)
    model = run.load_model()
    for name, param, same in zip(model.names, model.params, trainer.model.params, strict=True):
        np.testing.assert_array_equal(param, same, err_msg=name)
    # For others to read, without this library.
    assert set(load_file(run.path / "weights.safetensors")) == set(model.names)


def test_weights_that_are_not_there_yet(begin: Begin) -> None:
    run = begin()
    path = run.path / "weights.safetensors"
    message = f"{path} is not there yet: the run has finished no epoch; go on with --resume"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        run.load_model()


def read(run: RunFolder, name: str) -> object:
    return run.load_model() if name == "weights.safetensors" else run.read_checkpoint()


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors"])
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_file_is_named(run: RunFolder, name: str, data: st.DataObject) -> None:
    path = run.path / name
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    places = st.sampled_from([0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) - 1])
    length = data.draw(places | st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:length])
    try:
        with pytest.raises(RunError, match=f"^{re.escape(str(path))} is truncated or no safetensors file"):
            read(run, name)
    finally:
        path.write_bytes(whole)
    assert read(run, name) is not None


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors"])
@pytest.mark.parametrize("content", [b"\x80\x04\x95pickle", b"PK\x03\x04", b"\xff" * 64, b"\0" * 64])
def test_no_safetensors_file(run: RunFolder, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    with pytest.raises(RunError, match=f"^{re.escape(str(run.path / name))} is truncated or no safetensors file"):
        read(run, name)


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors"])
def test_a_folder_in_the_place_of_the_file(run: RunFolder, name: str) -> None:
    (run.path / name).unlink()
    (run.path / name).mkdir()
    with pytest.raises(RunError, match=re.escape(str(run.path / name))):
        read(run, name)


@pytest.mark.parametrize(
    ("name", "metadata", "met"),
    [
        ("weights.safetensors", None, "one of another program"),
        ("weights.safetensors", {"format": "pt"}, "pt"),
        ("weights.safetensors", {"format": "attnlayers checkpoint 2"}, "attnlayers checkpoint 2"),
        ("checkpoint.safetensors", {"format": "attnlayers weights 1"}, "attnlayers weights 1"),
        ("checkpoint.safetensors", {"format": "attnlayers checkpoint 3"}, "attnlayers checkpoint 3"),
    ],
)
def test_a_foreign_file_is_named(run: RunFolder, name: str, metadata: dict[str, str] | None, met: str) -> None:
    path = run.path / name
    save_file({"weight": np.ones(3)}, path, metadata)
    kind = f"attnlayers {path.stem} {1 if path.stem == 'weights' else 2}"
    message = f"{path} must be an {kind!r} file, got {met!r}"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        read(run, name)


def test_weights_of_a_larger_model(run: RunFolder, begin: Begin) -> None:
    other = begin("other", hidden_size=9)
    other.write_weights(Trainer(other).model.state())
    path = run.path / "weights.safetensors"
    path.write_bytes((other.path / "weights.safetensors").read_bytes())
    message = f"{path} does not fit config.json: encoder.lstm.Wx must have shape (4, 32), got (4, 36)"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        run.load_model()


def test_weights_of_another_model(run: RunFolder) -> None:
    run.write_weights({"encoder.embed.W": np.ones((3, 4))})
    message = "does not fit config.json: these are the weights of another model: missing are decoder.affine.W, "
    with pytest.raises(RunError, match=re.escape(message)):
        run.load_model()


def other_weights(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(checkpoint.weights | {"encoder.lstm.b": np.zeros(36)}, checkpoint.optimizer, checkpoint.progress)


def no_slot(checkpoint: Checkpoint) -> Checkpoint:
    kept = {name: value for name, value in checkpoint.optimizer.items() if name != "v.3"}
    return Checkpoint(checkpoint.weights, kept, checkpoint.progress)


def other_slot(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(checkpoint.weights, checkpoint.optimizer | {"v.3": np.zeros(36)}, checkpoint.progress)


def no_progress(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(checkpoint.weights, checkpoint.optimizer, {"epoch": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, "encoder.lstm.b must have shape (32,), got (36,)"),
        (no_slot, "v.3"),
        (other_slot, "v.3"),
        (no_progress, ""),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    run: RunFolder, change: Callable[[Checkpoint], Checkpoint], message: str
) -> None:
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    run.write_checkpoint(change(checkpoint))
    expected = f"the checkpoint in {run.path} does not fit config.json: "
    with pytest.raises(RunError, match=f"^{re.escape(expected)}.*{re.escape(message)}"):
        Trainer(run)


def test_a_checkpoint_holds_the_optimizer(run: RunFolder) -> None:
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    assert {name.partition(".")[0] for name in checkpoint.optimizer} == set(Adam.slots)
    assert len(checkpoint.optimizer) == len(Adam.slots) * len(checkpoint.weights)
    assert checkpoint.progress["optimizer_steps"] == 1


def test_metrics_are_a_table(begin: Begin) -> None:
    run = begin()
    row = dict.fromkeys(METRICS) | {"epoch": 1, "step": 20, "loss": 0.5, "tokens_per_second": 1e3, "seconds": 0.25}
    run.write_metrics([row, row | {"held_out_loss": 1.5, "accuracy": 0.75, "chrf": 60.5}])
    assert Path(run.path, "metrics.csv").read_text(encoding="utf-8").splitlines() == [
        "epoch,step,loss,held_out_loss,accuracy,chrf,perplexity,tokens_per_second,seconds",
        "1,20,0.5,,,,,1000.0,0.25",
        "1,20,0.5,1.5,0.75,60.5,,1000.0,0.25",
    ]
    run.write_metrics([])
    assert Path(run.path, "metrics.csv").read_text().splitlines() == [
        "epoch,step,loss,held_out_loss,accuracy,chrf,perplexity,tokens_per_second,seconds"
    ]
