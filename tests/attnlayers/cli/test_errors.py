"""Every error is one line; `--debug` shows where it came from."""

from typing import Any

import pytest

MISSING = "no such thing.tsv"


def test_a_setting_that_makes_no_sense(attnlayers: Any) -> None:
    message = attnlayers.fails("train", ATTN_GPU="maybe")
    assert message.startswith("ATTN_GPU must be one of 1, true, yes, on (CuPy), 0, false, no, off or unset (NumPy), ")
    assert message.endswith("got 'maybe'")
    assert not [*attnlayers.cwd.iterdir()], "nothing may be begun"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"ATTN_GPU": "1", "ATTN_BACKEND": "numpy"}, "unset one of the two"),
        ({"ATTN_BACKEND": "nympu"}, "there is no backend 'nympu'"),
        ({"ATTN_THREADS": "many"}, "ATTN_THREADS must be a positive integer or unset, got 'many'"),
        ({"ATTN_BACKEND": "broken"}, "libfast.so.3: cannot open shared object file"),
    ],
)
def test_other_settings(attnlayers: Any, environ: dict[str, str], named: str) -> None:
    assert named in attnlayers.fails("train", **environ)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_debug_shows_the_traceback_wherever_it_stands(attnlayers: Any, place: int) -> None:
    arguments = ["train", MISSING, "--epochs", "1"]
    arguments.insert(place, "--debug")
    ended = attnlayers(*arguments)
    assert ended.returncode == 1
    assert "Traceback (most recent call last)" in ended.stderr
    assert f"DataError: {MISSING} does not exist" in ended.stderr.replace(str(attnlayers.cwd) + "/", "")


def test_without_debug_there_is_none(attnlayers: Any) -> None:
    assert "no such thing.tsv does not exist; give a file of" in attnlayers.fails("train", MISSING)


def test_debug_changes_nothing_that_works(attnlayers: Any, trained: Any) -> None:
    plain, debug = attnlayers("translate", trained.path, "abc"), attnlayers("--debug", "translate", trained.path, "abc")
    assert (debug.returncode, debug.stdout, debug.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.returncode == 0


@pytest.mark.parametrize("command", [["info"], []])
def test_without_typer(attnlayers: Any, command: list[str]) -> None:
    message = attnlayers.fails(*command, before="import sys; sys.modules['typer'] = None")
    assert message == (
        "the command line needs typer, rich, matplotlib, safetensors, sacrebleu and tokenizers, and typer is missing: "
        "pip install 'attnlayers[train]'"
    )


@pytest.mark.parametrize("missing", ["safetensors", "matplotlib", "sacrebleu"])
def test_without_another_library(attnlayers: Any, trained: Any, missing: str) -> None:
    """Told before hours of training, not after."""
    message = attnlayers.fails(
        *("train", trained.data, "--epochs", "1", "--hidden-size", "8", "--out", "run"),
        before=f"import sys; sys.modules[{missing!r}] = None",
    )
    assert missing in message
    assert "pip install 'attnlayers[train]'" in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--epochs", "four"], "--epochs"),
        (["train", "--bogus"], "--bogus"),
        (["translate"], "run"),
        (["bogus"], "bogus"),
    ],
)
def test_a_line_that_cannot_be_understood(attnlayers: Any, arguments: list[str], named: str) -> None:
    ended = attnlayers(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [*attnlayers.cwd.iterdir()]
