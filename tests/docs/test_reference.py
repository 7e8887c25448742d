"""The reference has every public name, every command and every option, and nothing that is not there."""

import importlib
import inspect
import re

import pytest
from support import ROOT

from attnbackends import Backend
from attnlayers.functional import attention

REFERENCE = ROOT / "docs" / "reference"
MODULES = [
    "attnbackends",
    "attnlayers",
    *(f"attnlayers.{name}" for name in ("book", "data", "distributed", "functional", "layers", "models", "training")),
]
PACKAGES = {"book", "data", "distributed", "functional", "layers", "models", "training"}


def entries() -> set[str]:
    """The full names that have a page, or a place on one."""
    found = set()
    for path in REFERENCE.glob("*.rst"):
        module = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif name := re.fullmatch(r"(?:   |\.\. py:data:: )(\w+)", line):
                found.add(f"{module}.{name[1]}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_its_place(module: str) -> None:
    names = set(importlib.import_module(module).__all__) - (PACKAGES if module == "attnlayers" else set())
    home = "attnlayers" if module == "attnlayers.layers" else module  # a layer stands under its shorter name
    assert not {f"{home}.{name}" for name in names} - entries()


def test_what_a_backend_may_override() -> None:
    text = (ROOT / "docs" / "howto" / "backends.md").read_text(encoding="utf-8")
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.M)))
    assert sorted(told) == [name for name in dir(Backend) if not name.startswith("_")]


def test_every_entry_is_a_public_name() -> None:
    for entry in entries():
        module, _, name = entry.rpartition(".")
        assert name in importlib.import_module(module).__all__, entry


def test_commands_and_their_options() -> None:
    typer = pytest.importorskip("typer")
    from attnlayers.cli.app import app

    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    rows = {row[1]: set(re.findall(r"`(--[\w-]+)`", row[2])) for row in re.finditer(r"^\| `(.*?)` \|(.*)$", text, re.M)}
    rows.pop("python -m attnlayers.book")
    commands = typer.main.get_command(app).commands
    there = {}
    for name, command in commands.items():
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        there[f"attnlayers {name}"] = {option for option in options if option.startswith("--")} - {"--help"}
    assert rows == there


@pytest.mark.parametrize("page", ["howto/masks.md"])
def test_the_table_of_options_is_the_signature(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name.partition("=")[0] for row in rows for name in re.findall(r"`([\w=]+)`", row.partition(", added")[0])}
    signature = {name for name, one in inspect.signature(attention).parameters.items() if name not in ("q", "k")}
    # What is kept is said in the line above the table, and a seed belongs to dropout.
    assert named == signature - {"keep_bytes"}
