"""Files are whole or not there, whatever goes wrong."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnlayers.training import RunError
from attnlayers.training.files import write_whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kept.json"
    path.write_text("old")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_text() == "old"
    assert [*path.parent.iterdir()] == [path], "nothing may be left lying about"


def test_it_replaces_what_was_there(path: Path) -> None:
    write_whole(path, lambda aside: aside.write_text("new"))
    assert path.read_text() == "new"
    assert [*path.parent.iterdir()] == [path]


def test_it_makes_a_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "new.txt", lambda aside: aside.write_bytes(b"\0" * 10_000))
    assert (tmp_path / "new.txt").read_bytes() == b"\0" * 10_000
    assert len([*tmp_path.iterdir()]) == 1


def test_it_writes_beside_under_the_same_suffix(path: Path) -> None:
    met = []

    def write(aside: Path) -> None:
        met.append(aside)
        aside.write_text("new")
        assert path.read_text() == "old"  # to whoever reads meanwhile

    write_whole(path, write)
    (aside,) = met
    assert aside.parent == path.parent
    assert aside.suffix == path.suffix
    assert aside.name.startswith(".")
    assert not aside.exists()


def test_who_has_it_open_reads_on(path: Path) -> None:
    with path.open() as file:
        write_whole(path, lambda aside: aside.write_text("new"))
        assert file.read() == "old"


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_of_the_writer_goes_on_as_it_is(path: Path, error: BaseException) -> None:
    def write(aside: Path) -> None:
        aside.write_text("half of it")
        raise error

    with pytest.raises(type(error)) as caught:
        write_whole(path, write)
    assert caught.value is error
    assert_untouched(path)


def test_a_full_disk_in_the_middle(path: Path) -> None:
    def write(aside: Path) -> None:
        aside.write_text("half of it")
        Path("/dev/full").write_text("the other half")

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(RunError) as caught:
        write_whole(path, write)
    assert str(caught.value) == f"{path} cannot be written: No space left on device; what stood there is untouched"
    assert_untouched(path)


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
def test_a_full_disk_at_the_end(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(call, full)
    with pytest.raises(RunError, match=r"kept.json cannot be written: No space left on device; what stood"):
        write_whole(path, lambda aside: aside.write_text("new"))
    monkeypatch.undo()
    assert_untouched(path)


def no_folder(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path / "missing" / "a.txt", "No such file or directory"


def below_a_file(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "a.txt", "Not a directory"


@pytest.mark.parametrize("place", [no_folder, below_a_file])
def test_a_place_that_cannot_be(tmp_path: Path, place: Callable[[Path], tuple[Path, str]]) -> None:
    path, reason = place(tmp_path)
    called = []
    with pytest.raises(RunError, match=f"^{re.escape(f'{path} cannot be written: {reason}')}"):
        write_whole(path, called.append)
    assert called == []


def test_a_folder_that_is_read_only(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes to every folder")
    path.parent.chmod(0o555)
    try:
        with pytest.raises(RunError, match="cannot be written: Permission denied"):
            write_whole(path, lambda aside: aside.write_text("new"))
        assert_untouched(path)
    finally:
        path.parent.chmod(0o755)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(RunError, match="folder cannot be written: Is a directory"):
        write_whole(path, lambda aside: aside.write_text("new"))
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("exists", [True, False])
def test_the_mode_follows_the_umask(tmp_path: Path, mask: int, exists: bool) -> None:
    path = tmp_path / "a.txt"
    if exists:
        path.write_text("old")
        path.chmod(0o600)
    before = os.umask(mask)
    try:
        write_whole(path, lambda aside: aside.write_text("new"))
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
