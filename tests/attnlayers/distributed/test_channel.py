"""Last words of a rank, which a launcher may be slow to take."""

import os
import sys
from pathlib import Path
from threading import Timer
from time import monotonic

import pytest

from attnlayers.distributed import _channel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes are not looked into there")


def test_last_words_are_waited_for() -> None:
    reader, writer = os.pipe()
    took: list[bytes] = []
    slow = Timer(0.1, lambda: took.append(os.read(reader, 100)))
    os.write(writer, b"there is not enough memory")
    begun = monotonic()
    slow.start()
    _channel._wait_until_read(writer)
    assert monotonic() - begun >= 0.1
    slow.join()
    assert took == [b"there is not enough memory"]


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_channel, "READ_SECONDS", 0.05)
    _, writer = os.pipe()
    os.write(writer, b"there is not enough memory")
    begun = monotonic()
    _channel._wait_until_read(writer)
    assert 0.05 <= monotonic() - begun < 5


def test_files_and_pipes_with_nothing_to_read_are_not_waited_for() -> None:
    _, writer = os.pipe()
    with Path(os.devnull).open("w") as null:
        begun = monotonic()
        _channel._wait_until_read(writer, null.fileno())
    assert monotonic() - begun < _channel.READ_SECONDS
