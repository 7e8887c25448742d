"""The command line in processes of its own, and a run that it trained."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT, search_path

Ended = subprocess.CompletedProcess[str]

COMMAND = [sys.executable, "-c", "from attnlayers.cli import main; main()"]
NO_PICTURES = """
from attnlayers.training import RunFolder, trainer
trainer.training_figure = trainer.attention_figure = RunFolder.write_figure = lambda *arguments: None
"""
TINY = ("--epochs", "1", "--hidden-size", "8", "--embedding-size", "4")


def environ_of(**changes: str) -> dict[str, str]:
    """This process's environment without what decides on backends, threads, colours and widths."""
    own = ("ATTN_", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    roots = (ROOT / "src", ROOT / "backends", ROOT / "tests" / "plugins")
    return inherited | {"PYTHONPATH": search_path(*roots)} | changes


@dataclass(frozen=True)
class CommandLine:
    """`attnlayers` in a folder."""

    cwd: Path

    def __call__(self, *arguments: object, stdin: str | bytes = "", before: str = "", **environ: str) -> Ended:
        """Run it to its end; `before` is code to run in its process first."""
        command = [*COMMAND[:2], f"{before}\n{COMMAND[2]}", *map(str, arguments)]
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        ended = subprocess.run(
            command, input=data, capture_output=True, cwd=self.cwd, env=environ_of(**environ), timeout=120, check=False
        )
        return Ended(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def train(self, *arguments: object, before: str = "") -> Ended:
        """Train without the pictures, which take most of the time of a tiny run."""
        return self("train", *arguments, before=f"{NO_PICTURES}\n{before}")

    def fails(self, *arguments: object, **options: str) -> str:
        """The one line that it fails with, without what every error begins with."""
        ended = self(*arguments, **options)
        *before, last = ended.stderr.splitlines() or [""]
        assert (ended.returncode, before) == (1, []), (ended.returncode, ended.stdout, last)
        assert last.startswith("attnlayers: error: ")
        return last.removeprefix("attnlayers: error: ")

    def start(self, *arguments: object, before: str = "") -> "subprocess.Popen[str]":
        """Begin, and let the test read and signal."""
        return subprocess.Popen(
            [*COMMAND[:2], f"{before}\n{COMMAND[2]}", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.cwd, env=environ_of(), text=True,
        )  # fmt: skip


def write_pairs(path: Path, count: int = 300, form: str = "{0}\t{0}\n") -> Path:
    """A file to train on: a few letters, and the same letters."""
    rng = random.Random(0)
    words = ("".join(rng.choices("abcd", k=rng.randint(1, 4))) for _ in range(count))
    path.write_text("".join(form.format(word) for word in words), encoding="utf-8")
    return path


@pytest.fixture
def attnlayers(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.tsv")


@dataclass(frozen=True)
class Trained:
    """A run, and what its training said."""

    path: Path
    data: Path
    said: Ended


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished run of one epoch on 300 pairs of characters; tests must leave it as it is."""
    import matplotlib.font_manager  # noqa: F401  makes a cache where there is none, and takes its time to

    folder = tmp_path_factory.mktemp("trained")
    data = write_pairs(folder / "pairs.tsv")
    said = CommandLine(folder)("train", "pairs.tsv", *TINY, "--batch-size", 8, "--lr", 0.01, "--out", "run")
    assert said.returncode == 0, said
    return Trained(folder / "run", data, said)


@pytest.fixture(scope="session")
def info(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """What `attnlayers info` says where there is neither PyTorch, which takes seconds to import, nor CuPy."""
    command_line = CommandLine(tmp_path_factory.mktemp("info"))
    return command_line("info", before="import sys; sys.modules['torch'] = sys.modules['cupy'] = None")


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Options of a training that takes no time."""
    return TINY


@pytest.fixture
def make_pairs() -> Callable[..., Path]:
    return write_pairs


@pytest.fixture
def environ() -> Callable[..., dict[str, str]]:
    """The environment of a command in a process of its own."""
    return environ_of
