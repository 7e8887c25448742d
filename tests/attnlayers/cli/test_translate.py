"""`attnlayers translate`: texts or lines in, lines and pictures out."""

import json
import re
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


def test_what_is_not_known_is_answered_too(attnlayers: Any, trained: Any) -> None:
    ended = attnlayers("translate", trained.path, "ab", "abx", "日本")
    assert (ended.returncode, ended.stdout.count("\n"), ended.stderr) == (0, 3, "")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_blank_line_for_a_blank_line(attnlayers: Any, trained: Any, answers: list[str], end: str) -> None:
    lines = ["", TEXTS[0], " ", *TEXTS[1:], ""]
    ended = attnlayers("translate", trained.path, stdin="\ufeff" + "".join(line + end for line in lines))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n") == ["", answers[0], "", *answers[1:], "", ""]


def test_what_cannot_be_answered_is_named_and_the_rest_goes_on(
    attnlayers: Any, trained: Any, answers: list[str]
) -> None:
    lines = [text.encode() for text in TEXTS] * 60
    lines[2] = b"a\xffb"
    lines[203] = b"\xe9"
    ended = attnlayers("translate", trained.path, stdin=b"\n".join(lines), PYTHONIOENCODING="utf-8")
    expected = answers * 60
    expected[2] = expected[203] = ""
    assert ended.stdout.split("\n") == [*expected, ""]
    assert ended.returncode == 1
    message = "of standard input: it is not UTF-8; save the text as UTF-8"
    assert ended.stderr.splitlines() == [f"attnlayers: error: line {n} {message}" for n in (3, 204)]


def test_a_closed_vocabulary_of_an_older_run(attnlayers: Any, trained: Any) -> None:
    run = Path(shutil.copytree(trained.path, attnlayers.cwd / "run"))
    path = run / "vocabulary.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"unit": "character", "tokens": ["?", *content["tokens"]]}))
    ended = attnlayers("translate", "run", "ab", "xy", "ba")
    assert ended.returncode == 1
    first, second, third = ended.stdout.splitlines()
    assert (bool(first), second, bool(third)) == (True, "", True)
    assert ended.stderr.startswith("attnlayers: error: text 2: 'x' (character 1), 'y' (character 2) of 'xy' are not in")


NO_MEMORY = """
import attnlayers.models as models
generate = models.Translator.generate
def limited(self, sources, *arguments, **options):
    if sources.shape[1] > 50:
        raise MemoryError
    return generate(self, sources, *arguments, **options)
models.Translator.generate = limited
"""


def test_one_line_that_is_too_long_for_the_memory(attnlayers: Any, trained: Any, answers: list[str]) -> None:
    ended = attnlayers("translate", trained.path, *TEXTS, "a" * 51, before=NO_MEMORY)
    assert ended.stdout.splitlines() == [*answers, ""]
    assert ended.returncode == 1
    assert ended.stderr == "attnlayers: error: text 5: there is not enough memory for it\n"


def test_an_output_that_has_no_such_character(attnlayers: Any, trained: Any, answers: list[str]) -> None:
    ended = attnlayers("translate", trained.path, TEXTS[0], "é", TEXTS[1], PYTHONIOENCODING="ascii")
    assert ended.stdout.splitlines() == [answers[0], "", answers[1]]
    message = r"text 2: the output's encoding ascii has no \xe9; set PYTHONIOENCODING=utf-8"
    assert (ended.returncode, ended.stderr) == (1, f"attnlayers: error: {message}\n")


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


def test_a_page_instead_of_a_picture(attnlayers: Any, trained: Any) -> None:
    ended = attnlayers("translate", trained.path, "abcd", "bb", "--heatmap", "a.html")
    assert (ended.returncode, ended.stderr) == (0, "")
    seen = attnlayers("view", trained.path, "abcd", "bb", "--out", "b.htm")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.splitlines()[:2] == ended.stdout.splitlines()
    assert re.fullmatch(r"b\.htm: 0\.0\d MB", seen.stdout.splitlines()[2])
    pages = [(attnlayers.cwd / name).read_text(encoding="utf-8") for name in ("a.html", "b.htm")]
    data = [page.partition('id="data">')[2].partition("</script>")[0] for page in pages]
    first, second = (json.loads(own)["texts"] for own in data)
    assert first == second
    assert [text["name"] for text in first] == ["1: abcd", "2: bb"]
    assert first[0]["attentions"][0]["keys"] == list("abcd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x" * 3, "--out", "a.png"), "--out must name a file that ends in one of .html, .htm, got a.png"),
        (tuple("abcdabcdabcda"), "a page holds 12 texts at most, got 13: leave some out"),
        (("",), "text 1 has no tokens, got '': leave it out"),
        (("ab", "--out", "none/a.html"), "none/a.html cannot be written: No such file or directory"),
    ],
)
def test_what_has_no_page_is_one_line(attnlayers: Any, trained: Any, arguments: tuple[str, ...], message: str) -> None:
    assert attnlayers.fails("view", trained.path, *arguments) == message
