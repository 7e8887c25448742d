"""`attnlayers train --architecture`, `--attention`, and what `translate` has for them."""

from typing import Any

import pytest
from PIL import Image

PAIRS = "".join(f"{a}{b}{c}\t{c}{b}{a}\n" for a in "abc" for b in "abc" for c in "abc")
SMALL = ("--epochs", "1", "--embedding-size", "8", "--hidden-size", "8", "--batch-size", "9", "--out", "run")


@pytest.fixture
def pairs(attnlayers: Any) -> str:
    (attnlayers.cwd / "pairs.tsv").write_text(PAIRS)
    return "pairs.tsv"


def test_a_transformer_from_training_to_its_heads(attnlayers: Any, pairs: str) -> None:
    ended = attnlayers.train(pairs, "--architecture", "transformer", "--heads", "2", "--depth", "1", *SMALL)
    assert ended.returncode == 0, ended.stderr
    plain = attnlayers("translate", "run", "abc", "cab")
    beam = attnlayers("translate", "run", "abc", "cab", "--beam-size", "3", "--heatmap", "heads.png", "--each-head")
    for found in (plain, beam):
        assert (found.returncode, found.stderr) == (0, "")
        assert len(found.stdout.splitlines()) == 2
    with Image.open(attnlayers.cwd / "heads.png") as image:
        image.load()
    refused = attnlayers.fails("train", "--resume", "--architecture", "seq2seq", "--out", "run")
    assert refused.startswith("--architecture is transformer in the run run, got seq2seq: leave it out")


@pytest.mark.parametrize("kind", ["general", "additive"])
def test_attention_of_ones_choice(attnlayers: Any, pairs: str, kind: str) -> None:
    ended = attnlayers.train(pairs, "--attention", kind, *SMALL)
    assert ended.returncode == 0, ended.stderr
    found = attnlayers("translate", "run", "abc", "--beam-size", "2")
    assert (found.returncode, found.stdout.count("\n"), found.stderr) == (0, 1, "")
    refused = attnlayers.fails("translate", "run", "abc", "--heatmap", "a.png", "--each-head")
    assert refused == "--each-head needs --heatmap FILE and a transformer, got seq2seq"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--architecture", "rnn"), "--architecture must be one of seq2seq, transformer, lm, got 'rnn'"),
        (("--attention", "sum"), "--attention must be one of dot, general, additive, got 'sum'"),
        (
            ("--architecture", "transformer", "--heads", "3"),
            "--embedding-size must be a multiple of --heads, got 128 and 3",
        ),
    ],
)
def test_bad_choices(attnlayers: Any, pairs: str, arguments: tuple[str, ...], message: str) -> None:
    assert attnlayers.fails("train", pairs, *arguments) == message
