"""Runs of either network: settings, resuming bit for bit, older folders, pictures of heads."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from attnlayers.models import AttentionSeq2seq, Transformer
from attnlayers.page.weights import Attention
from attnlayers.training import RunError, RunFolder, Settings, Trainer
from attnlayers.training.plots import heads_figure
from attnlayers.training.settings import RENAMED, VERSION_1
from attnlayers.translation import translate

Begin = Callable[..., RunFolder]
TRANSFORMER = {"architecture": "transformer", "heads": 2, "depth": 1, "warmup": 7}


def trained(run: RunFolder) -> dict[str, np.ndarray]:
    for _ in Trainer(run).steps():
        pass
    return run.load_model().state()


DROPPING = {"dropout": 0.3, "label_smoothing": 0.1, "weight_decay": 0.1, "schedule": "cosine", "warmup": 5}


@pytest.mark.parametrize(
    "changes",
    [TRANSFORMER, {"attention": "general"}, {"attention": "additive", "warmup": 3}, DROPPING, TRANSFORMER | DROPPING],
    ids=["transformer", "general", "additive", "dropout", "transformer with dropout"],
)
def test_a_stopped_run_ends_with_the_same_bits(begin: Begin, small_pictures: None, changes: dict[str, Any]) -> None:
    whole = trained(begin("whole", **changes))
    run = begin("stopped", **changes)
    trainer = Trainer(run)
    for i, _ in enumerate(trainer.steps()):
        if i == 4:
            break
    trainer.save()
    resumed = trained(RunFolder.open(run.path))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_the_transformer_learns_and_leaves_pictures_of_its_heads(begin: Begin, small_pictures: None) -> None:
    run = begin(**(TRANSFORMER | {"embedding_size": 16, "hidden_size": 16, "epochs": 3, "warmup": 5}))
    trainer = Trainer(run)
    losses = [progress.loss for progress in trainer.steps() if progress.phase == "epoch"]
    assert losses[-1] < 0.7 * losses[0]
    assert (run.path / "heads.png").stat().st_size > 1000
    assert isinstance(run.load_model(), Transformer)


def test_weights_of_an_answer_are_the_mean_of_its_heads(begin: Begin) -> None:
    run = begin(**TRANSFORMER)
    answers = translate(Trainer(run).model, run.vocabulary, ["abc", "d"], reverse=True, max_length=5, beam_size=2)
    for answer in answers:
        assert answer.heads is not None
        assert answer.heads.shape == (1, 2, len(answer.target_tokens), len(answer.source_tokens))
        np.testing.assert_allclose(answer.heads.mean(axis=(0, 1)), answer.weights, rtol=1e-6)
        np.testing.assert_allclose(answer.heads.sum(axis=-1), 1, rtol=1e-5)


def test_the_learning_rate_warms_up() -> None:
    settings = Settings(lr=0.5, warmup=4)
    assert [settings.lr_at(step, 6) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert Settings(lr=0.5).lr_at(0, 9) == 0.5


def test_the_learning_rate_falls_as_a_cosine() -> None:
    settings = Settings(lr=0.5, warmup=2, schedule="cosine")
    expected = [0.25, 0.5, 0.5, 0.5 * 0.75, 0.25, 0.5 * 0.25, 0.0]  # cos of 0, 60, 90, 120 and 180 degrees
    at = [0, 1, 2, 4, 5, 6, 8]
    np.testing.assert_allclose([settings.lr_at(step, 8) for step in at], expected, atol=1e-12)
    assert settings.lr_at(0, 1) == 0.25, "an end before the rate has risen"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heads": 8}, "--heads belongs to --architecture transformer or lm, got seq2seq: leave it out"),
        (
            {"depth": 2, "architecture": "seq2seq"},
            "--depth belongs to --architecture transformer or lm, got seq2seq: leave it out",
        ),
        (
            {"architecture": "transformer", "attention": "dot"},
            "--attention belongs to --architecture seq2seq, got transformer: leave it out",
        ),
        ({"vocab_size": 99}, "--vocab-size belongs to --unit subword, got character: leave it out"),
        (
            {"unit": "subword", "min_count": 2},
            "--min-count belongs to --unit character or word, got subword: leave it out",
        ),
        ({"columns": "1,2"}, "--columns belongs to data in a file, got dates: leave it out"),
    ],
)
def test_options_that_the_others_leave_no_meaning(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        Settings.of(**given)


def test_defaults_follow_the_architecture() -> None:
    assert Settings.of() == Settings()
    found = Settings.of(architecture="transformer", hidden_size=64)
    assert (found.embedding_size, found.hidden_size, found.warmup, found.heads, found.depth) == (128, 64, 200, 4, 2)
    assert Settings.of(architecture="transformer", embedding_size=8).embedding_size == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "rnn"}, "--architecture must be one of seq2seq, transformer, lm, got 'rnn'"),
        ({"attention": "sum"}, "--attention must be one of dot, general, additive, got 'sum'"),
        ({"architecture": "transformer", "heads": 3}, "--embedding-size must be a multiple of --heads, got 16 and 3"),
        ({"heads": 0}, "--heads must be positive, got 0"),
        ({"depth": -1}, "--depth must be positive, got -1"),
        ({"warmup": -1}, "--warmup must be 0 or more, got -1"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        replace(Settings(), **changes)


def test_a_folder_of_an_older_version_goes_on(begin: Begin, small_pictures: None) -> None:
    run = begin()
    path = run.path / "config.json"
    config = json.loads(path.read_text())
    for name in VERSION_1:
        del config[name]
    for before, now in RENAMED.items():
        config[before] = config.pop(now)
    path.write_text(json.dumps(config))
    older = RunFolder.open(run.path)
    assert older.settings == replace(run.settings, split="book", normalize="none")
    assert isinstance(Trainer(older).model, AttentionSeq2seq)
    trained(older)
    checkpoint = older.path / "checkpoint.safetensors"
    save_file(load_file(checkpoint), checkpoint, {"format": "attnlayers checkpoint 1", "progress": "{}"})
    with pytest.raises(RunError, match=r"was written by version 0\.1.*to train begin a new one in another --out$"):
        Trainer(older)
    assert translate(older.load_model(), older.vocabulary, ["abc"], reverse=True)


def test_heads_beside_each_other(tmp_path: Path) -> None:
    cross, own = (
        np.random.default_rng(0).dirichlet(np.ones(T), size=(2, 3, 5)) for T in (4, 5)
    )  # (layers, heads, L, T)
    sides = ("target", "source")
    attentions = [
        Attention("cross", cross, list("vwxyz"), list("abcd"), sides),
        Attention("decoder", own[:1, :2], list("vwxyz"), list("<vwxy"), sides),
    ]
    figure = heads_figure(attentions)
    expected = [*cross.reshape(6, 5, 4), *own[0, :2]]
    names = [f"cross, layer {i}, head {j}" for i in (1, 2) for j in (1, 2, 3)]
    names += [f"decoder, layer 1, head {j}" for j in (1, 2)]
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(figure.axes) == len(panels) == len(expected)
    for panel, name, weights in zip(panels, names, expected, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), weights)
        assert panel.images[0].get_clim() == (0, weights.max()), "each head by itself"
        assert panel.get_title() == f"{name}\nup to {weights.max():.2f}"
    assert [tick.get_text() for tick in panels[6].get_xticklabels()] == list("<vwxy")
    figure.savefig(tmp_path / "heads.png")
    with pytest.raises(ValueError, match="must have several heads or layers"):
        heads_figure([Attention("cross", np.ones((1, 1, 1, 1)), ["a"], ["x"], sides)])
