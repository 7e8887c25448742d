"""`attnlayers train --architecture lm` and `attnlayers generate`."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from support import tiny_gpt2

TINY = ("--architecture", "lm", "--hidden-size", "8", "--embedding-size", "8", "--heads", "2", "--depth", "1",
        "--context", "8", "--batch-size", "16", "--warmup", "0", "--lr", "0.02")  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of a little text, naïve café\n" for i in range(40)))
    return path


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return tiny_gpt2(tmp_path / "gpt2")


def test_train_resume_and_generate(attnlayers: Any, text: Path) -> None:
    ended = attnlayers.train(text, *TINY, "--epochs", "2", "--out", "run", "--dropout", "0.1")
    assert ended.returncode == 0, ended.stderr
    assert "windows to learn from" in ended.stdout
    assert "perplexity" in ended.stdout
    assert "attnlayers generate run" in ended.stdout
    attnlayers.train(text, *TINY, "--epochs", "1", "--out", "half", "--dropout", "0.1")
    attnlayers.train("--resume", "--epochs", "2", "--out", "half")
    for name, array in load_file(attnlayers.cwd / "run" / "checkpoint.safetensors").items():
        assert array.tobytes() == load_file(attnlayers.cwd / "half" / "checkpoint.safetensors")[name].tobytes(), name
    with (attnlayers.cwd / "run" / "metrics.csv").open() as file:
        last = [*csv.DictReader(file)][-1]
    assert float(last["perplexity"]) == pytest.approx(math.exp(float(last["held_out_loss"])))
    seen = attnlayers("view", "run", "a little", "text", "--out", "seen.html")
    assert (seen.returncode, seen.stderr) == (0, ""), seen
    page = (attnlayers.cwd / "seen.html").read_text(encoding="utf-8")
    assert "1: a little" in page
    assert "2: text" in page
    assert (last["accuracy"], last["chrf"]) == ("", "")
    found = attnlayers("generate", "run", "line", "--max-tokens", "20", "--seed", "3")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("line")
    assert "20 tokens in" in found.stderr
    assert "tokens/s" in found.stderr
    streamed = attnlayers("generate", "run", "line", "--max-tokens", "20", "--seed", "3", "--stream")
    assert streamed.stdout == found.stdout
    assert attnlayers("generate", "run", "line", "--max-tokens", "20", "--seed", "4").stdout != found.stdout


def test_subwords(attnlayers: Any, text: Path) -> None:
    ended = attnlayers.train(text, *TINY, "--unit", "subword", "--vocab-size", "300", "--epochs", "1", "--out", "run")
    assert ended.returncode == 0, ended.stderr
    found = attnlayers("generate", "run", "日本", "--max-tokens", "8", "--temperature", "0")
    assert found.stdout.startswith("日本")


def test_pictures(attnlayers: Any, text: Path) -> None:
    attnlayers("train", text, *TINY, "--epochs", "1", "--out", "run")
    for name in ("training.png", "attention.png", "heads.png"):
        assert (attnlayers.cwd / "run" / name).read_bytes()[:4] == b"\x89PNG"


def test_a_folder_of_transformers(attnlayers: Any, pretrained: Any) -> None:
    together = attnlayers("generate", pretrained, "--max-tokens", "9", stdin="Once\nupon a time\n\n")
    assert together.returncode == 0, together.stderr
    first, second = together.stdout.split("\n\nupon a time", 1)
    assert first.startswith("Once")
    streamed = attnlayers("generate", pretrained, "--max-tokens", "9", "--stream", stdin="Once\nupon a time\n")
    assert streamed.stdout == together.stdout
    alone = attnlayers("generate", pretrained, "Once", "--max-tokens", "9")
    assert alone.stdout == first + "\n"
    assert "9 tokens in" in alone.stderr
    assert second
    greedy = attnlayers("generate", pretrained, "Once", "--max-tokens", "99", "--temperature", "0")
    assert "61 tokens in" in greedy.stderr  # 64 positions, and the token after the last
    stopped = attnlayers("generate", pretrained, "Once", "--temperature", "0", "--stop", greedy.stdout[6:8])
    assert stopped.stdout == greedy.stdout[: greedy.stdout.index(greedy.stdout[6:8], 4)] + "\n"


def test_errors(attnlayers: Any, text: Path, pretrained: Any, trained: Any) -> None:
    assert "config.json is missing" in attnlayers.fails("generate", "nowhere", "a")
    assert "there is nothing to go on with" in attnlayers.fails("generate", pretrained)
    assert "--top-p must lie in (0, 1]" in attnlayers.fails("generate", pretrained, "a", "--top-p", "2")
    assert "a prompt may have 64 tokens with this model, got 70" in attnlayers.fails("generate", pretrained, "a" * 70)
    assert "which translates: attnlayers translate" in attnlayers.fails("generate", trained.path, "a")
    assert "learns from plain text" in attnlayers.fails("train", "dates", "--architecture", "lm")
    assert "words forget white space" in attnlayers.fails("train", text, *TINY, "--unit", "word")
    assert "two times --heads" in attnlayers.fails("train", text, *TINY, "--heads", "8")
    assert "--label-smoothing belongs to --architecture" in attnlayers.fails(
        "train", text, *TINY, "--label-smoothing", "0.1"
    )
    assert "--context belongs to --architecture lm" in attnlayers.fails("train", text, "--context", "8")
    config = pretrained / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mamba"}))
    assert "model_type='mamba', which is not known" in attnlayers.fails("generate", pretrained, "a")
    attnlayers.train(text, *TINY, "--epochs", "1", "--out", "run")
    assert "attnlayers generate run goes on" in attnlayers.fails("translate", "run", "a")
