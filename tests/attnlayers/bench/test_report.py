"""Plan, targets, table, line and picture, from made-up results."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from attnlayers.bench import run
from attnlayers.bench.cases import TABLE, chosen
from attnlayers.bench.duel import Outcome, Row, row
from attnlayers.bench.paired import Timing
from attnlayers.bench.picture import bench_figure
from attnlayers.bench.report import last_line, tables
from attnlayers.bench.run import Part, Report, measure, plan
from attnlayers.bench.targets import most, verdicts
from attnlayers.training.plots import save_figure


def made_up(case: str, direction: str, peer: str, contender: str, ratio: float, **more: object) -> Row:
    ours, theirs = Timing(np.full(5, 0.001 * ratio)), Timing(np.full(5, 0.001))
    place = {"backend": "numpy", "dtype": "float32"} | more
    errors = place.pop("errors", None)
    return row(
        case, place["backend"], place["dtype"], peer, contender, direction, ours, theirs, 1e-7, errors  # type: ignore[arg-type]
    )  # fmt: skip


def report_of(*rows: Row) -> Report:
    report = Report({"attnlayers": "0", "date": "2026-01-02", "processor": "a processor"}, 1.0)
    report.rows += rows
    return report


def shown(report: Report) -> str:
    console = Console(width=200, record=True, file=StringIO())
    for table in tables(report):
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("book", "both", "torch", "numpy", "float32"), 0.6),
        (("short", "both", "torch", "numpy", "float32"), 0.6),
        (("long", "both", "torch", "numpy", "float32"), 0.9),
        (("long", "forward", "torch", "numpy", "float32"), 1.0),
        (("long", "backward", "torch", "numpy", "float32"), None),
        (("decode", "forward", "jax", "numpy", "float32"), 0.5),
        (("book", "both", "loops", "numpy", "float32"), 0.04),
        (("book", "both", "numpy", "numpy", "float32"), None),
        (("training", "step", "torch", "numpy", "float32"), 1.0),
        (("T=64", "both", "torch", "numpy", "float32"), None),
        (("book", "both", "torch", "cupy", "float32"), 0.7),
        (("long", "both", "torch", "cupy", "float16"), 1.0),
        (("long", "both", "jax", "cupy", "float32"), None),
    ],
)
def test_targets(place: tuple[str, str, str, str, str], expected: float | None) -> None:
    assert most(*place) == expected


def test_the_fastest_kernel_counts() -> None:
    kernels = [
        made_up("book", "both", "torch", "PyTorch math", 0.2, backend="cupy"),
        made_up("book", "both", "torch", "PyTorch flash", 0.8, backend="cupy"),
    ]
    ((best, target, met),) = verdicts(kernels)
    assert (best.contender, target, met) == ("PyTorch flash", 0.7, False)


@pytest.mark.parametrize(("error", "met"), [(1.9e-3, True), (2.1e-3, False)])
def test_half_precision_must_be_as_exact(error: float, met: bool) -> None:
    errors = (error, 1e-3)
    rows = [made_up("long", "both", "torch", "PyTorch flash", 0.8, backend="cupy", dtype="float16", errors=errors)]
    assert verdicts(rows)[0][2] is met
    assert ("the error is more than twice" in shown(report_of(*rows))) is not met


def test_table_and_line() -> None:
    report = report_of(
        made_up("mid", "both", "torch", "PyTorch", 0.95),
        made_up("book", "both", "torch", "PyTorch", 0.5),
        made_up("book", "both", "loops", "book's loops", 0.03),
    )
    report.memory += [
        {"case": "huge", "backend": "numpy", "contender": "attnlayers", "megabytes": 201.0},
        {"case": "huge", "backend": "numpy", "contender": "NumPy", "reason": "its weights alone would take 1 GiB"},
    ]
    report.left_out += [
        {"part": "all", "contender": "jax", "reason": "not installed"},
        {"part": "mid, cupy float16, torch", "contender": "PyTorch cudnn", "reason": "refuses"},
        {"part": "long, cupy float16, torch", "contender": "PyTorch cudnn", "reason": "refuses"},
    ]
    text = shown(report)
    assert text.index("book") < text.index("mid")
    for part in ("0.95 (0.95–0.95)", "0.030 (0.030–0.030)", "not met: PyTorch 0.9", "met: PyTorch 0.6", "not met: 200"):
        assert part in text
    assert "left out: its weights alone would take 1 GiB" in text
    assert last_line(report) == (
        "measured on numpy against PyTorch, book's loops; "
        "left out: jax: not installed; PyTorch cudnn: refuses (mid, long)"
    )


def test_nothing_measured() -> None:
    assert last_line(report_of()) == "measured on nothing against nobody; left out: nothing"
    assert tables(report_of()) == []


def test_files(tmp_path: Path) -> None:
    rows = [made_up(f"T={T}", "both", "torch", "PyTorch", 0.9, backend=b) for T in (64, 256) for b in ("numpy", "cupy")]
    rows += [made_up("decode", "forward", "jax", "JAX", 0.4), made_up("book", "both", "torch", "PyTorch", 1.4)]
    for some in ([], rows):
        report = report_of(*some)
        save_figure(bench_figure(report), tmp_path / "bench.png")
        assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
        assert len(json.loads(json.dumps(report.to_json()))["rows"]) == len(some)
    axes = bench_figure(report_of(*rows)).axes
    labels = {line.get_label() for line in axes[0].lines} | {line.get_label() for line in axes[-1].lines}
    assert {"attnlayers, CPU", "attnlayers, CUDA", "PyTorch, CPU", "PyTorch, CUDA"} <= labels


def test_plan() -> None:
    parts = plan(chosen(("book", "huge")), True, ["numpy"], ["numpy", "loops", "torch"])
    assert [part.title for part in parts] == [
        "book, numpy float32, torch",
        "huge, numpy float32, torch",
        "training, numpy float32, torch",
        "book, numpy float32, numpy",
        "huge, numpy float32, numpy",
        "book, numpy float32, loops",
        "huge memory, numpy float32, attnlayers",
        "huge memory, numpy float32, torch",
        "huge memory, numpy float32, numpy",
    ]


def test_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Part("time", TABLE[0], "numpy", "float32", peer) for peer in ("torch", "jax")]
    found = [Outcome([made_up("book", "both", "torch", "PyTorch", 0.5)], {"a kernel": "refuses"}), RuntimeError("gone")]

    def in_process(*arguments: object, **options: object) -> Outcome:
        outcome = found.pop(0)
        if isinstance(outcome, RuntimeError):
            raise outcome
        return outcome

    monkeypatch.setattr(run, "in_process", in_process)
    report = report_of()
    assert list(measure(report, parts)) == parts
    assert [row.contender for row in report.rows] == ["PyTorch"]
    assert report.left_out == [{"part": parts[0].title, "contender": "a kernel", "reason": "refuses"}]
    assert report.wrong == [{"part": parts[1].title, "contender": "jax", "reason": "gone"}]


def test_a_limit_of_time() -> None:
    report = report_of()
    parts = [Part("time", TABLE[0], "numpy", "float32", "torch")]
    assert list(measure(report, parts, minutes=-1)) == []
    assert report.left_out == [{"part": parts[0].title, "contender": "torch", "reason": "the -1 minutes were over"}]
