"""``save_params`` and ``load_params``: the book's files, and nothing but arrays in them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlayers.book.base_model import BaseModel, read_arrays


class Small(BaseModel):
    def __init__(self) -> None:
        self.params = [np.ones((2, 3), dtype="f"), np.zeros(3, dtype="f")]
        self.grads = [np.zeros_like(param) for param in self.params]


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Small()
    model.params[0] *= 1.5
    model.save_params()
    arrays = pickle.loads(Path("Small.pkl").read_bytes())  # as the book reads it
    assert [array.dtype for array in arrays] == [np.float16, np.float16]
    other = Small()
    own = other.params[0]
    other.load_params()
    assert other.params[0] is own
    np.testing.assert_array_equal(own, model.params[0])


def full_disk(aside: Path, content: bytes) -> int:
    """Half of the content is written, and no more."""
    with aside.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "a.pkl", Small()
    model.save_params(str(path))
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    model.params[0] += 1
    with pytest.raises(OSError, match=r"a\.pkl cannot be written: No space left on device; .* is untouched"):
        model.save_params(str(path))
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot be written: No such file or directory"):
        Small().save_params(str(tmp_path / "none" / "a.pkl"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_that_python_writes(tmp_path: Path, protocol: int) -> None:
    arrays = [np.arange(6, dtype=np.float16).reshape(2, 3), np.asfortranarray(np.ones((3, 2), dtype="f"))]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    for found, expected in zip(read_arrays(str(tmp_path / "a.pkl")), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


class Harm:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([Harm()]), "it asks for builtins.print"),
        (pickle.dumps([np.array([Harm()], dtype=object)]), "it asks for builtins.print"),
        (pickle.dumps({"word_vecs": np.ones(2)}), "it holds a dict"),
        (pickle.dumps([1.5]), "entry 0 is a float"),
        (pickle.dumps([np.array(["a"])]), "entry 0 is an array of <U1"),
        (pickle.dumps([np.array([None])]), "entry 0 is an array of object"),
        (b"", "Ran out of input"),
        (b"\x80\x04]", ""),
        (pickle.dumps([np.ones(3)])[:-20], ""),
    ],
)
def test_anything_else_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.pkl is refused, .*: expected a pickled list of NumPy arrays") as caught:
        Small().load_params(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_weights_of_another_model_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps([np.full((2, 3), 7.0)]))
    model = Small()
    with pytest.raises(ValueError, match=r"another model: expected shapes \[\(2, 3\), \(3,\)\], got \[\(2, 3\)\]"):
        model.load_params(str(path))
    assert np.all(model.params[0] == 1)
    with pytest.raises(OSError, match="No file: nothing"):
        model.load_params("nothing.pkl")
