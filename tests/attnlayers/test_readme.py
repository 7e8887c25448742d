"""Both READMEs are short and say the same, and all that they name is there: examples, options, commands, links."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, tiny_gpt2

from attnlayers.functional import attention

NAMES = ("README.md", "README.ja.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
LONGEST = 140


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[name], re.DOTALL)


def commands(name: str) -> list[str]:
    """Lines for a shell, without what is said about them."""
    lines = "".join(blocks(name, "sh")).splitlines()
    return [line.partition("  #")[0].rstrip() for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_ten_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example, _ = blocks(name, "python")
    exec(example, {})
    assert "input 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_language_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines run on a folder of weights by chance, with a token for each byte."""
    tiny_gpt2(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    _, example = blocks(name, "python")
    exec(example, {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_length(name: str) -> None:
    assert TEXTS[name].count("\n") <= LONGEST


def test_both_say_the_same() -> None:
    english, japanese = NAMES
    assert commands(english) == commands(japanese)
    assert len(re.findall("^## ", TEXTS[english], re.M)) == len(re.findall("^## ", TEXTS[japanese], re.M))
    figures = [re.findall(r"\d+\.\d\d\b", TEXTS[name]) for name in NAMES]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_linked_is_there(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXTS[name])
    assert len(links) > 20
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_options_of_attention_are_its_own(name: str) -> None:
    (call,) = re.findall(r"`attention\((.*?)\)`", TEXTS[name])
    named = [part.strip().partition("=")[0] for part in call.split(",")]
    assert {"mask", "bias", "causal"} <= set(named) <= set(inspect.signature(attention).parameters)


@pytest.mark.parametrize("line", commands("README.md"))
def test_commands_are_understood(line: str) -> None:
    """Each option is one of its command, each target one of the Makefile, each module one that runs."""
    words = [word for word in line.split() if "=" not in word]
    if words[0] == "mpiexec":
        words = words[3:]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    elif words[0] == "python":
        assert words[1] == "-m"
        assert importlib.import_module(f"{words[2]}.__main__" if words[2] == "attnlayers" else words[2])
    elif words[0] == "pip":
        extras = re.search(r"\[(.*?)\]", line)
        assert extras
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in extras[1].split(","):
            assert re.search(rf"^{extra} = \[", text, re.M)
    else:
        _understood(words)


def _understood(words: list[str]) -> None:
    typer = pytest.importorskip("typer")
    from attnlayers.cli.app import app

    assert words[0] == "attnlayers"
    command: Any = typer.main.get_command(app).commands[words[1]]
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    assert {word for word in words[2:] if word.startswith("--")} <= options


def test_settings_that_are_named() -> None:
    text = TEXTS["README.md"]
    for architecture in re.findall(r"--architecture (\w+)", text):
        assert architecture in ("seq2seq", "transformer", "lm")
        from attnlayers.training import Settings

        Settings.of(data="a.txt", architecture=architecture)
    assert "%load_ext attnlayers.book" in text
    from attnlayers.book import load_ipython_extension

    assert callable(load_ipython_extension)
