"""Pairs of texts from a file."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnlayers.data import DataError, read_pairs

TWO = [("2/10/93", "1993-02-10"), ("may 4, 1977", "1977-05-04")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.txt"


@pytest.mark.parametrize(
    "content",
    [
        b"2/10/93\t1993-02-10\nmay 4, 1977\t1977-05-04\n",
        b"2/10/93\t1993-02-10\nmay 4, 1977\t1977-05-04",
        b"2/10/93\t1993-02-10\nmay 4, 1977\t1977-05-04\n\n\n",
        b"2/10/93\t1993-02-10\r\nmay 4, 1977\t1977-05-04\r\n",
        b"\xef\xbb\xbf2/10/93\t1993-02-10\nmay 4, 1977\t1977-05-04\n",
        b"2/10/93     _1993-02-10\nmay 4, 1977 _1977-05-04\n",
        b"2/10/93     _1993-02-10  \r\nmay 4, 1977 _1977-05-04  \r\n",
        b"\xef\xbb\xbf2/10/93_1993-02-10\nmay 4, 1977_1977-05-04",
    ],
    ids=["tsv", "no-newline", "newlines", "crlf", "bom", "book", "book-crlf", "book-bom"],
)
def test_formats(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_pairs(path) == read_pairs(str(path)) == TWO


def test_tab_separated_texts_are_taken_as_they_stand(path: Path) -> None:
    path.write_text(" a_b \t年\x0c月\u2028\n", encoding="utf-8")
    assert read_pairs(path) == [(" a_b ", "年\x0c月\u2028")]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1).filter(str.strip)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1))
def test_written_pairs_are_read_back(path: Path, end: str, pairs: list[tuple[str, str]]) -> None:
    content = "".join(f"{source}\t{target}{end}" for source, target in pairs)
    # A file that begins with U+FEFF needs a mark of its own, as that one is taken for a mark.
    path.write_bytes(content.encode("utf-8-sig"))
    assert read_pairs(path) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty; write one source<TAB>target pair a line"),
        (b"\xef\xbb\xbf\r\n\r\n", " is empty; write one source<TAB>target pair a line"),
        (b"a\tb\nc\td\nf\xe9\te\n", ", line 3: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfa\tb\n\xe9\te\n", ", line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a\tb\n".encode("utf-16"), ", line 1: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a\tb\n\nc\td\n", ", line 2 is blank; remove it"),
        (b"\na\tb\n", ", line 1 is blank; remove it"),
        (b"a\tb\r\n  \r\n", ", line 2 is blank; remove it"),
        (b"a\tb\nc d\n", ", line 2: expected one tab between source and target, got none in 'c d'"),
        (b"a\tb\tc\n", r", line 1: expected one tab between source and target, got 2 in 'a\tb\tc'"),
        (b"a\tb\nc\t" + 99 * b"d" + b"\t", f", got 2 in 'c\\t{58 * 'd'}…'"),
        (
            b"a b\n",
            ", line 1: expected one '_' between source and target (or one tab, from line 1 on), got none in 'a b'",
        ),
        (
            b"a_b\nc_d_e\n",
            ", line 2: expected one '_' between source and target (or one tab, from line 1 on), got 2 in 'c_d_e'",
        ),
        (b"a\tb\n\tc\n", r", line 2: the source is empty in '\tc'; complete the pair or remove it"),
        (b"a\tb\nc\t \n", r", line 2: the target is empty in 'c\t '; complete the pair or remove it"),
        (b"   _c\n", ", line 1: the source is empty in '   _c'; complete the pair or remove it"),
        (b"a_b\nc_ \n", ", line 2: the target is empty in 'c_ '; complete the pair or remove it"),
    ],
)
def test_bad_content(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}.*{re.escape(message)}$"):
        read_pairs(path)


def test_missing_file(path: Path) -> None:
    message = f"{path} does not exist; give a file of source<TAB>target lines"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_pairs(path)


def test_folder(tmp_path: Path) -> None:
    message = f"{tmp_path} is a folder; give a file of source<TAB>target lines"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_pairs(tmp_path)


def test_unreadable_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} cannot be read: Permission denied$"):
        read_pairs(path)
