"""`attnlayers translate`: texts or lines in, lines and pictures out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attnlayers.training import RunFolder
from attnlayers.translation import translate

TEXTS = ["abc", "d", "dcba", "aab"]


@pytest.fixture
def answers(trained: Any) -> list[str]:
    """What the library answers."""
    run = RunFolder.open(trained.path)
    found = [answer.text for answer in translate(run.load_model(), run.vocabulary, TEXTS, reverse=True)]
    assert len(set(found)) > 1
    return found


def test_arguments(attnlayers: Any, trained: Any, answers: list[str]) -> None:
    ended = attnlayers("translate", trained.path, *TEXTS, stdin="aaa\n")
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == answers
    assert ended.stderr == ""


@pytest.mark.parametrize(("end", "last"), [("\n", ""), ("\r\n", "\r\n")])
def test_lines(attnlayers: Any, trained: Any, answers: list[str], end: str, last: str) -> None:
    assert attnlayers("translate", trained.path, stdin=end.join(TEXTS) + last).stdout.splitlines() == answers


def test_more_lines_than_are_answered_at_once(attnlayers: Any, trained: Any, answers: list[str]) -> None:
    ended = attnlayers("translate", trained.path, stdin="".join(f"{text}\n" for text in TEXTS) * 130)
    assert ended.stdout.splitlines() == answers * 130


def test_nothing_in_nothing_out(attnlayers: Any, trained: Any) -> None:
    ended = attnlayers("translate", trained.path, "--heatmap", "a.png")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(("count", "name"), [(2, "a.png"), (1, "b.pdf")])
def test_a_heat_map(attnlayers: Any, trained: Any, count: int, name: str) -> None:
    texts, lines = ([], "abc\n" * count) if count > 1 else (["abc"], "")
    ended = attnlayers("translate", trained.path, *texts, "--heatmap", name, stdin=lines)
    assert ended.returncode == 0
    assert ended.stdout.count("\n") == count
    assert ended.stderr == ""
    assert [path.name for path in attnlayers.cwd.iterdir()] == [name]
    path = attnlayers.cwd / name
    if path.suffix == ".pdf":
        assert path.read_bytes().startswith(b"%PDF")
    else:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 300


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("gone/a.png", "gone/a.png cannot be written: No such file or directory"),
        ("a.xyz", "a.xyz"),
        ("picture", "picture"),
    ],
    ids=["no folder", "no format of that name", "no format"],
)
def test_a_heat_map_that_cannot_be(attnlayers: Any, trained: Any, name: str, named: str) -> None:
    message = attnlayers.fails("translate", trained.path, "abc", "--heatmap", name)
    assert named in message
    assert ".part" not in message
    assert not [*attnlayers.cwd.iterdir()]


@pytest.mark.parametrize("by", ["argument", "line"])
def test_a_token_that_is_not_known(attnlayers: Any, trained: Any, by: str) -> None:
    given = {"stdin": "ab\nabx\n"} if by == "line" else {}
    message = attnlayers.fails("translate", trained.path, *([] if given else ["ab", "abx"]), **given)
    assert message == (
        "'x' (character 3) of 'abx' is not in the vocabulary of 7 tokens; "
        "train on data that holds it or write the text without it"
    )


@pytest.mark.parametrize("by", ["argument", "line"])
def test_an_empty_text(attnlayers: Any, trained: Any, by: str) -> None:
    given = {"stdin": "ab\n\nba\n"} if by == "line" else {}
    message = attnlayers.fails("translate", trained.path, *([] if given else [""]), **given)
    assert "empty" in message or "no tokens" in message


def test_bytes_that_are_no_text(attnlayers: Any, trained: Any) -> None:
    message = attnlayers.fails("translate", trained.path, stdin=b"ab\n\xff\n", PYTHONIOENCODING="utf-8")
    assert "UTF-8" in message.upper()


def test_a_run_that_is_not_there(attnlayers: Any) -> None:
    assert attnlayers.fails("translate", "gone", "abc") == "there is no run folder gone"
    (attnlayers.cwd / "folder").mkdir()
    assert attnlayers.fails("translate", "folder", "abc").startswith("folder/config.json is missing: ")


def test_weights_that_are_not_there_yet(attnlayers: Any, trained: Any) -> None:
    run = Path(shutil.copytree(trained.path, attnlayers.cwd / "run"))
    (run / "weights.safetensors").unlink()
    message = attnlayers.fails("translate", "run", "abc")
    assert message == ("run/weights.safetensors is not there yet: the run has finished no epoch; go on with --resume")


def test_truncated_weights(attnlayers: Any, trained: Any) -> None:
    run = Path(shutil.copytree(trained.path, attnlayers.cwd / "run"))
    path = run / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    message = attnlayers.fails("translate", "run", "abc")
    assert message.startswith("run/weights.safetensors is truncated or no safetensors file (")


def test_a_reader_that_goes_away(attnlayers: Any, trained: Any) -> None:
    process = attnlayers.start("translate", trained.path, *TEXTS * 50)
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert errors.count("\n") <= 1
