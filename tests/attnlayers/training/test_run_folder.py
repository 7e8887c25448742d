"""A folder is begun, opened again, and refused with a reason."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from attnlayers.training import RunError, RunFolder

Begin = Callable[..., RunFolder]


def write_config(run: RunFolder, change: Callable[[dict[str, Any]], object]) -> None:
    path = run.path / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_what_is_begun_can_be_opened(begin: Begin) -> None:
    run = begin(epochs=7, lr=0.25, max_grad_norm=1.5, reverse=False, seed=11)
    assert {path.name for path in run.path.iterdir()} == {"config.json", "vocabulary.json"}
    again = RunFolder.open(run.path)
    assert again.settings == run.settings
    assert again.vocabulary == run.vocabulary
    assert again.data_fingerprint == run.data_fingerprint
    assert again.path == run.path
    assert again.pairs() == run.settings.pairs()
    assert again.read_checkpoint() is None


def test_words_and_any_script_survive(begin: Begin, tmp_path: Path) -> None:
    data = tmp_path / "日本 語.tsv"
    data.write_text('今日 は\ttoday "1"\n明日 は\ttomorrow \\\n', encoding="utf-8")
    run = begin(data=str(data), unit="word")
    again = RunFolder.open(run.path)
    assert again.vocabulary == run.vocabulary
    assert again.vocabulary.encode("明日 today") == run.vocabulary.encode("明日 today")
    assert again.pairs() == [("今日 は", 'today "1"'), ("明日 は", "tomorrow \\")]


def test_the_configuration_is_plain_json(begin: Begin) -> None:
    run = begin()
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert config == asdict(run.settings) | {"data_fingerprint": run.data_fingerprint}


def test_changed_settings_are_kept(begin: Begin) -> None:
    run = begin(epochs=2)
    changed = replace(run.settings, epochs=9)
    run.write_config(changed)
    assert run.settings == changed
    assert RunFolder.open(run.path).settings == changed
    assert RunFolder.open(run.path).pairs() == run.pairs()


def test_an_empty_folder_may_be_there(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert RunFolder.open(begin("run").path).settings.hidden_size == 8


def test_folders_above_are_made(begin: Begin, tmp_path: Path) -> None:
    assert begin("some/where/deep").path == tmp_path / "some" / "where" / "deep"
    assert (tmp_path / "some" / "where" / "deep" / "config.json").is_file()


def test_a_folder_that_holds_files_is_left_alone(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "thesis.txt").write_text("three years")
    message = f"{path} holds files already: choose another folder with --out, or go on with the run there by --resume"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        begin("run")
    assert [file.name for file in path.iterdir()] == ["thesis.txt"]


def test_a_run_is_not_begun_twice(begin: Begin) -> None:
    run = begin()
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(RunError, match="holds files already"):
        begin(hidden_size=9)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_file_in_the_place_of_the_folder(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="run is a file: choose another folder with --out"):
        begin("run")
    with pytest.raises(RunError, match=f"^there is no run folder {re.escape(str(tmp_path / 'run'))}$"):
        RunFolder.open(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a file"


def test_a_folder_that_cannot_be_made(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        RunError, match=f"^the folder {re.escape(str(tmp_path / 'file' / 'run'))} cannot be made: Not a"
    ):
        begin("file/run")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^there is no run folder {re.escape(str(tmp_path / 'gone'))}$"):
        RunFolder.open(tmp_path / "gone")


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_a_missing_file_is_named(begin: Begin, name: str) -> None:
    run = begin()
    (run.path / name).unlink()
    message = f"{run.path / name} is missing: {run.path} is no run folder, or not a whole one"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        RunFolder.open(run.path)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_a_file_that_is_not_text_is_named(begin: Begin, name: str) -> None:
    run = begin()
    (run.path / name).write_bytes(b'{"\xff')
    with pytest.raises(RunError, match=f"^{re.escape(str(run.path / name))} cannot be read: .*utf-8"):
        RunFolder.open(run.path)
    (run.path / name).unlink()
    (run.path / name).mkdir()
    with pytest.raises(RunError, match=f"^{re.escape(str(run.path / name))} cannot be read: .*directory"):
        RunFolder.open(run.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is no JSON: "),
        ('{"data": "dates", ', " is no JSON: "),
        ("data = dates", " is no JSON: "),
        ("[1, 2]", " must hold a JSON object, got list"),
        ("null", " must hold a JSON object, got NoneType"),
        ('"dates"', " must hold a JSON object, got str"),
        ("{}", " is not the configuration of a run: 'data_fingerprint'"),
        (
            '{"data_fingerprint": ""}',
            " is not the configuration of a run: keys ['batch_size', 'data', 'embedding_size', ",
        ),
    ],
)
def test_a_configuration_that_is_none(begin: Begin, text: str, message: str) -> None:
    run = begin()
    (run.path / "config.json").write_text(text)
    with pytest.raises(RunError, match=f"^{re.escape(str(run.path / 'config.json') + message)}"):
        RunFolder.open(run.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("lr"), "keys ['lr'] are missing or unknown"),
        (lambda config: config.update(layers=2), "keys ['layers'] are missing or unknown"),
        (
            lambda config: config.update(size=config.pop("hidden_size")),
            "keys ['hidden_size', 'size'] are missing or unknown",
        ),
        (lambda config: config.update(epochs=0), "--epochs must be positive, got 0"),
        (lambda config: config.update(lr=float("nan")), "--lr must be positive, got nan"),
        (lambda config: config.update(seed=-3), "--seed must be 0 or more, got -3"),
        (lambda config: config.update(unit="letter"), "--unit must be one of character, word, subword, got 'letter'"),
        (lambda config: config.update(hidden_size="8"), "--hidden-size must be of type int, got '8'"),
        (lambda config: config.update(lr=None), "lr"),
        (lambda config: config.update(seed=[1]), "seed"),
        (lambda config: config.update(hidden_size=8.5), "--hidden-size must be of type int, got 8.5"),
        (lambda config: config.update(seed=1.5), "seed"),
        (lambda config: config.update(data=5), "data"),
        (lambda config: config.update(reverse="no"), "reverse"),
    ],
    ids=[
        *("missing", "unknown", "renamed", "zero", "nan", "negative", "unit"),
        *("text as size", "null", "list", "fraction as size", "fraction as seed", "number as data", "text as switch"),
    ],
)
def test_a_configuration_with_a_bad_value(
    begin: Begin, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    run = begin()
    write_config(run, change)
    expected = f"{run.path / 'config.json'} is not the configuration of a run: "
    with pytest.raises(RunError, match=f"^{re.escape(expected)}.*{re.escape(message)}"):
        RunFolder.open(run.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a vocabulary as JSON"),
        ('{"unit": "character", "tok', "expected a vocabulary as JSON"),
        ("[]", "expected a vocabulary {"),
        ('{"unit": "letter", "tokens": []}', "expected a vocabulary {"),
        ('{"unit": "character", "tokens": ["ab"]}', "expected a token of one character, got 'ab'"),
        ('{"unit": "character", "tokens": ["a", "a"]}', "'a' occurs more than once"),
    ],
)
def test_a_vocabulary_that_is_none(begin: Begin, text: str, message: str) -> None:
    run = begin()
    path = run.path / "vocabulary.json"
    path.write_text(text)
    with pytest.raises(RunError, match=f"^{re.escape(f'{path}: {message}')}"):
        RunFolder.open(run.path)


def test_data_that_changed_since_the_run_began(begin: Begin, copy_task: Path) -> None:
    run = begin()
    copy_task.write_text(copy_task.read_text() + "ab\tba\n")
    message = f"{copy_task} has changed since the run {run.path} began: start a new one"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        RunFolder.open(run.path).pairs()


def test_the_same_pairs_written_otherwise_are_the_same_data(begin: Begin, copy_task: Path) -> None:
    run = begin()
    copy_task.write_bytes(copy_task.read_bytes().replace(b"\n", b"\r\n"))
    assert RunFolder.open(run.path).pairs() == run.settings.pairs()


def test_data_that_is_gone(begin: Begin, copy_task: Path) -> None:
    run = begin()
    copy_task.unlink()
    with pytest.raises(RunError, match=f"^{re.escape(str(copy_task))} does not exist.*--resume --data PATH$"):
        RunFolder.open(run.path).pairs()
