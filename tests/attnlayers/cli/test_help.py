"""Help: there at once, whatever is wrong with the machine."""

import pytest
from support import output_of

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


def test_every_setting_is_an_option_under_its_name() -> None:
    """And a parameter of the command: `--batch-size`, ``batch_size`` of the settings, ``batch_size`` in the code."""
    from dataclasses import fields

    import typer.main

    from attnlayers.cli.app import app
    from attnlayers.training.settings import Settings, option

    command = typer.main.get_command(app).commands["train"]
    named = {parameter.name: set(parameter.opts) for parameter in command.params}
    settings = {field.name for field in fields(Settings)}
    assert set(named) == settings | {"out", "resume", "moved"}
    for name in settings - {"data"}:
        assert named[name] == {option(name)} == {f"--{name.replace('_', '-')}"}
