"""What a terminal is sent: bars that fit and leave nothing behind, no control characters; in logs a line a minute."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnlayers._terminal import printable
from attnlayers.cli import train as command
from attnlayers.cli.screen import NowAndThen
from attnlayers.training import Progress

ANSI = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """What a terminal of some width shows in the end, and the longest line that it was sent."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.row, self.column, self.longest = width, [""], 0, 0, 0

    def write(self, text: str) -> None:
        place = 0
        while place < len(text):
            found = ANSI.match(text, place)
            if found:
                count, place = int(found[1] or 1) if found[1].isdigit() or not found[1] else 1, found.end()
                if found[2] == "A":
                    self.row = max(0, self.row - count)
                elif found[2] == "K":
                    self.lines[self.row] = "" if found[1] == "2" else self.lines[self.row][: self.column]
                continue
            c, place = text[place], place + 1
            if c == "\r":
                self.column = 0
            elif c == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + c + line[self.column + 1 :]
                self.column += 1
                self.longest = max(self.longest, self.column)


def in_a_terminal(width: int, cwd: Path, arguments: list[str], environ: dict[str, str]) -> Screen:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    ended = subprocess.Popen(
        [sys.executable, "-m", "attnlayers", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environ | {"TERM": "xterm"}, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        received += part
    assert ended.wait(60) == 0, received
    os.close(ours)
    screen = Screen(width)
    screen.write(received.decode())
    return screen


@pytest.mark.parametrize("width", [80, 50])
def test_bars_fit_and_leave_nothing_behind(attnlayers: Any, pairs: Path, tiny: Any, width: int, environ: Any) -> None:
    screen = in_a_terminal(
        width, attnlayers.cwd, ["train", str(pairs), *tiny, "--batch-size", "4", "--out", "run"], environ()
    )
    told = [line for line in screen.lines if line]
    epoch = [line for line in told if line.startswith("epoch 1/1  loss ")]
    assert len(epoch) == 1
    assert len(epoch[0]) <= width
    assert not [line for line in told if "━" in line or line.lstrip().startswith("held out")]
    texts = max(len(line) for line in told if not line.startswith("epoch"))
    assert screen.longest <= max(width, texts), "only sentences may be wrapped by the terminal"


@given(
    st.builds(
        Progress,
        phase=st.sampled_from(["train", "evaluate", "epoch"]),
        epoch=st.integers(1, 999),
        epochs=st.just(999),
        done=st.integers(0, 10**6),
        total=st.just(10**6),
        loss=st.none() | st.floats(0, 1e4),
        held_out_loss=st.none() | st.floats(0, 1e4),
        accuracy=st.none() | st.floats(0, 1),
        chrf=st.none() | st.floats(0, 100),
        best=st.none() | st.integers(1, 999),
        tokens_per_second=st.none() | st.floats(0, 1e9),
        seconds_left=st.none() | st.floats(0, 1e7),
    ),
    st.integers(0, 120),
)
def test_a_line_fits_whatever_there_is_to_tell(progress: Progress, width: int) -> None:
    line = command._line("epoch 1/9  ", progress, width)
    assert len(line) <= max(width, len("epoch 1/9"))
    whole = command._line("epoch 1/9  ", progress, None)
    assert set(line.split("  ")) <= set(whole.split("  "))
    assert command._line("epoch 1/9  ", progress, len(whole)) == whole


def test_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = [0.0], []
    monkeypatch.setattr("attnlayers.cli.screen.monotonic", lambda: clock[0])
    now_and_then = NowAndThen(shown.append)
    for second in range(0, 200, 7):
        clock[0] = float(second)
        now_and_then(str(second))
    assert shown == ["63", "126", "189"]


def test_a_log_has_a_line_a_minute(attnlayers: Any, pairs: Path, tiny: Any) -> None:
    hurry = "import attnlayers.cli.screen as screen\nfrom itertools import count\n"
    hurry += "ticks = count(0, 30)\nscreen.monotonic = lambda: next(ticks)\n"
    ended = attnlayers.train(pairs, *tiny, "--batch-size", "27", "--out", "run", before=hurry)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert re.fullmatch(r"epoch 1/1  2/10(  .*)?", lines[1])
    assert sum(line.startswith("epoch 1/1  loss ") for line in lines) == 1
    assert "\x1b" not in ended.stdout + ended.stderr


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", shown)
    if not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", text):
        assert shown == text


def test_what_a_model_learned_is_not_sent_raw(attnlayers: Any, tiny: Any) -> None:
    (attnlayers.cwd / "evil.tsv").write_text("".join(f"{a}{b}\t\x1b[31m{a}\x07\n" for a in "abcd" for b in "abcdefgh"))
    ended = attnlayers.train("evil.tsv", *tiny, "--out", "run\x1b[2J")
    assert ended.returncode == 0, ended.stderr
    answered = attnlayers("translate", "run\x1b[2J", "ab", "cd\x1b", "--heatmap", "a\x07.png")
    refused = attnlayers("view", "no\x1b[2Jrun", "ab")
    wrong = attnlayers("train", "no\x1b[2Jfile")
    for one in (ended, answered, refused, wrong):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", one.stdout + one.stderr), one
    assert r"run\x1b[2J" in ended.stdout
    assert r"no\x1b[2Jfile" in wrong.stderr


@pytest.mark.parametrize("given_", ["date", "Dates", "dates.", "datse"])
def test_nearly_dates_suggests_dates(attnlayers: Any, given_: str) -> None:
    message = attnlayers.fails("train", given_)
    assert message == f"{given_} does not exist: did you mean dates, as in `attnlayers train dates`?"


def test_a_file_that_is_called_date_is_a_file(attnlayers: Any, pairs: Path, tiny: Any) -> None:
    pairs.rename(attnlayers.cwd / "date")
    assert attnlayers.train("date", *tiny).returncode == 0


@pytest.mark.parametrize(("begun", "later"), [("--reverse", "--no-reverse"), ("--no-reverse", "--reverse")])
def test_a_switch_is_named_as_it_is_typed(attnlayers: Any, pairs: Path, tiny: Any, begun: str, later: str) -> None:
    assert attnlayers.train(pairs, *tiny, begun, "--out", "run").returncode == 0
    message = attnlayers.fails("train", "--resume", "--out", "run", later)
    assert message == f"it is {begun} in the run run, got {later}: leave it out, or start a run in another --out"


def test_messages_name_options_as_they_are_typed(attnlayers: Any, pairs: Path) -> None:
    from attnlayers.training.settings import CHOICES, NOT_NEGATIVE, POSITIVE, SHARES

    options = dict.fromkeys((*POSITIVE, *NOT_NEGATIVE, *SHARES), "-1") | dict.fromkeys(CHOICES, "what")
    options |= {"columns": "3", "vocab_size": "5"}
    for name, value in options.items():
        typed = f"--{name.replace('_', '-')}"
        message = attnlayers.fails("train", pairs, typed, value)
        assert typed in message, message
        assert not re.search(r"\b[a-z]+_[a-z]+\b", message), message
