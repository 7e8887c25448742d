"""`attnlayers bench`."""

import json
from typing import Any

import pytest

from attnbackends import available_backends

TINY = """
from attnlayers.bench import cases
cases.TABLE = (cases.Case("book", 2, 3, 5, 7, shared=True), cases.Case("mid", 2, 3, 5, 7))
"""
"""Small shapes in the parent: a part carries its case to the process that measures it."""


def test_table_files_and_line(attnlayers: Any) -> None:
    arguments = ("--cases", "book,mid", "--backends", "numpy", "--peers", "loops,numpy", "--seconds", 0.01)
    ended = attnlayers("bench", *arguments, "--out", "found", before=TINY)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[-1] == "measured on numpy against NumPy, book's loops; left out: nothing"
    assert "found: bench.json, bench.png" in lines
    assert "forward + backward" in ended.stdout
    report = json.loads((attnlayers.cwd / "found" / "bench.json").read_text())
    assert {(row["case"], row["contender"]) for row in report["rows"]} == {
        ("book", "NumPy"), ("mid", "NumPy"), ("book", "book's loops"),
    }  # fmt: skip
    assert {(row["contender"], row["products"] is None, row["floor"] is None) for row in report["rows"]} == {
        ("NumPy", True, True), ("book's loops", False, False),
    }  # fmt: skip
    assert "products, ms" in ended.stdout
    cupy = available_backends()["cupy"]
    cause = "not asked for" if cupy.usable else " ".join(cupy.detail.split())
    assert f"CUDA: not yet measured: {cause}" in lines
    assert any("python -m benchmarks.host_time" in line for line in lines)
    assert report["cuda"] == f"not yet measured: {cause}"
    assert {"python", "numpy", "processor", "date"} <= report["machine"].keys()
    assert (attnlayers.cwd / "found" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_without_out_there_are_no_files(attnlayers: Any) -> None:
    ended = attnlayers(
        *("bench", "--cases", "mid", "--backends", "numpy", "--peers", "jax", "--seconds", 0.01, "--minutes", 0),
        before=TINY,
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines()[-1].startswith("measured on nothing against nobody; left out: jax: ")
    assert not [*attnlayers.cwd.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--cases", "book,bogus"), "expected some of book, short, mid, long, causal, longer, decode, huge, sweep"),
        (("--backends", "bogus"), "expected some of numpy, cupy, with commas between them, got bogus"),
        (("--peers", "bogus"), "expected some of torch, jax, numpy, loops, with commas between them, got bogus"),
        (("--peers", ","), "got nothing"),
    ],
)
def test_names_that_are_unknown(attnlayers: Any, arguments: tuple[str, ...], named: str) -> None:
    ended = attnlayers("bench", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert named in line
    assert arguments[0] in line


def test_a_backend_that_is_asked_for_and_does_not_answer(attnlayers: Any) -> None:
    cupy = available_backends()["cupy"]
    if cupy.usable:
        pytest.skip(f"a device answers: {cupy.detail}")
    assert attnlayers.fails("bench", "--backends", "cupy") == " ".join(cupy.detail.split())
