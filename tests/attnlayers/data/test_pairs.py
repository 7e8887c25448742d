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
        b"2/10/93\t1993-02-10\rmay 4, 1977\t1977-05-04\r",
        b"2/10/93\t1993-02-10\nmay 4, 1977\t1977-05-04\r\n \n\t\r\n",
    ],
    ids=["tsv", "no-newline", "newlines", "crlf", "bom", "book", "book-crlf", "book-bom", "cr", "blank-end"],
)
def test_formats(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_pairs(path) == read_pairs(str(path)) == TWO


def test_tab_separated_texts_are_taken_as_they_stand(path: Path) -> None:
    path.write_text(" a_b \t年\x0c月\u2028\n", encoding="utf-8")
    assert read_pairs(path) == [(" a_b ", "年\x0c月\u2028")]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1).filter(str.strip)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
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
        (b"a\tb\r\n  \r\nc\td", ", line 2 is blank; remove it"),
        (b"a\tb\rc\td\r\xe9\te\n", ", line 3: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a\tb\nc d\n", ", line 2: expected one tab between source and target, got none in 'c d'"),
        (
            b"a\tb\tc\n",
            r", line 1: expected one tab between source and target, got 2 in 'a\tb\tc'; "
            "--columns 1,2 takes the first two columns",
        ),
        (
            b"a\tb\nc\t" + 99 * b"d" + b"\t",
            f", got 2 in 'c\\t{58 * 'd'}…'; --columns 1,2 takes the first two columns",
        ),
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


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((1, 2), [("Go.", "Va !"), ("Hi.", "Salut !")]),
        ((2, 1), [("Va !", "Go."), ("Salut !", "Hi.")]),
        ((1, 3), [("Go.", "CC-BY 2.0 (France)"), ("Hi.", "CC-BY 2.0")]),
    ],
)
def test_columns(path: Path, columns: tuple[int, int], expected: list[tuple[str, str]]) -> None:
    path.write_text("Go.\tVa !\tCC-BY 2.0 (France)\nHi.\tSalut !\tCC-BY 2.0\textra\n")
    assert read_pairs(path, columns) == expected


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"a\tb\nc\n", (1, 2), ", line 2: expected 2 columns or more, with tabs between, got 'c'"),
        (b"a\tb\tc\n", (1, 4), ", line 1: expected 4 columns or more, with tabs between, got 'a\\tb\\tc'"),
        (b"a_b\n", (1, 2), ", line 1: expected 2 columns or more, with tabs between, got 'a_b'"),
        (b"a\t\tc\n", (1, 2), ", line 1: the target is empty in 'a\\t\\tc'; complete the pair or remove it"),
    ],
)
def test_columns_that_are_not_there(path: Path, content: bytes, columns: tuple[int, int], message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}{message}')}$"):
        read_pairs(path, columns)


@pytest.mark.parametrize("columns", [(0, 1), (2, 2), (1, -1)])
def test_columns_that_make_no_sense(path: Path, columns: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"^columns must be two different numbers from 1 on, got "):
        read_pairs(path, columns)


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
