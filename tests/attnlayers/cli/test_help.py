"""Help: there at once, whatever is wrong with the machine."""

import pytest
import typer
from rich.markup import render
from support import output_of

from attnlayers import __version__
from attnlayers.cli.app import app

CODE = """
import sys
from attnlayers.cli import main

sys.argv = ["attnlayers", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    print("ended with", ended.code)
print("loaded", [name for name in {heavy!r} if name in sys.modules])
"""
HEAVY = ["numpy", "matplotlib", "safetensors", "torch", "cupy", "attnbackends", "attnlayers.training"]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], ["train", "translate", "info", "--debug", "ATTN_GPU=1"]),
        (
            ["train", "--help"],
            [
                *(
                    "--epochs",
                    "--batch-size",
                    "--embedding-size",
                    "--hidden-size",
                    "--lr",
                    "--max-grad-norm",
                    "--seed",
                    "--out",
                ),
                *("--reverse", "--no-reverse", "--unit", "--resume", "dates"),
            ],
        ),
        (["translate", "--help"], ["--heatmap", "run", "texts", "standard input"]),
        (["bench", "--help"], ["--cases", "--backends", "--peers", "--out", "--seconds", "--minutes"]),
        (["info", "--help"], ["backend", "threads"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_help_needs_no_arrays(arguments: list[str], shown: list[str]) -> None:
    # Not even a backend that can be used.
    output = output_of(CODE.format(arguments=arguments, heavy=HEAVY), ATTN_GPU="maybe", COLUMNS="120")
    assert not [text for text in shown if text not in output]
    assert "ended with 0" in output
    assert output.endswith("loaded []")


def test_no_command_shows_the_help() -> None:
    output = output_of(CODE.format(arguments=[], heavy=HEAVY))
    assert "translate" in output
    assert "Traceback" not in output
    assert output.endswith("loaded []")


def test_no_bracket_of_a_help_is_eaten() -> None:
    """Help is markup to the one who draws it: what is in square brackets must come out of it."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        for param in command.params:
            text = getattr(param, "help", None) or ""
            assert render(text).plain == text.replace("\\[", "["), f"{name} {param.name}: {text}"


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (
            "train",
            [
                "Pairs in a step at most [128; lm: 32 windows].",
                "in the book's format [dates].",
                "[words: 2, characters: 1]",
            ],
        ),
        ("bench", ["as in book,short [all].", "loops [all].", "one case [4].", "begin nothing new [no limit]."]),
        ("translate", ["side by side. [default: 1]"]),
        ("view", ["The HTML file. [default: attention.html]"]),
    ],
)
def test_defaults_are_shown(command: str, texts: list[str]) -> None:
    output = output_of(CODE.format(arguments=[command, "-h"], heavy=HEAVY), COLUMNS="200")
    assert not [text for text in texts if text not in output]


def test_short_help_and_version() -> None:
    for arguments in (["-h"], ["train", "-h"], ["info", "-h"]):
        output = output_of(CODE.format(arguments=arguments, heavy=HEAVY))
        assert "Usage: attnlayers" in output
        assert "ended with 0" in output
    output = output_of(CODE.format(arguments=["--version"], heavy=HEAVY), ATTN_GPU="maybe")
    assert output.splitlines() == [f"attnlayers {__version__}", "ended with 0", "loaded []"]


def test_python_m_is_the_command() -> None:
    code = "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('attnlayers', run_name='__main__')"
    assert output_of(code) == f"attnlayers {__version__}"


def test_every_setting_is_an_option_under_its_name() -> None:
    """And a parameter of the command: `--batch-size`, ``batch_size`` of the settings, ``batch_size`` in the code."""
    from dataclasses import fields

    from attnlayers.training.settings import Settings, option

    command = typer.main.get_command(app).commands["train"]
    named = {parameter.name: set(parameter.opts) for parameter in command.params}
    settings = {field.name for field in fields(Settings)}
    assert set(named) == settings | {"out", "resume", "moved"}
    for name in settings - {"data"}:
        assert named[name] == {option(name)} == {f"--{name.replace('_', '-')}"}
