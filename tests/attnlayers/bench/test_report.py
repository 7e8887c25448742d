"""Plan, targets, table, line and picture, from made-up results."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from attnlayers.bench import run
from attnlayers.bench.cases import TABLE, chosen
from attnlayers.bench.outcome import Outcome, Row, row
from attnlayers.bench.paired import Timing
from attnlayers.bench.picture import bench_figure
from attnlayers.bench.report import last_line, refused, tables
from attnlayers.bench.run import Part, Report, measure, plan
from attnlayers.bench.targets import most, verdicts
from attnlayers.training.plots import save_figure


def made_up(case: str, direction: str, peer: str, contender: str, ratio: float, **more: object) -> Row:
    ours, theirs = Timing(np.full(5, 0.001 * ratio)), Timing(np.full(5, 0.001))
    place = {"backend": "numpy", "dtype": "float32"} | more
    errors, floor = place.pop("errors", None), place.pop("floor", None)
    products = None if floor is None else Timing(np.full(5, 0.001 * floor))  # type: ignore[operator]
    return row(
        case, place["backend"], place["dtype"], peer, contender, direction, ours, theirs, 1e-7, errors, products  # type: ignore[arg-type]
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


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (("mid", "both", "torch", "PyTorch", 1.05, 0.93), "not met: PyTorch 0.9\n(products 0.93, rest 0.12)"),
        (("mid", "both", "jax", "JAX", 0.62, 0.404), "not met: JAX 0.5\n(products 0.40, rest 0.22)"),
        (("book", "both", "loops", "loops", 0.08, 0.041), "not met: loops 0.04\n(products 0.041, rest 0.039)"),
        (("training", "step", "torch", "PyTorch", 1.1, 0.8), "not met: PyTorch 1\n(products 0.80, rest 0.30)"),
        (("mid", "both", "torch", "PyTorch", 0.85, 0.7), "met: PyTorch 0.9"),
        (("mid", "backward", "torch", "PyTorch", 1.05, 0.93), ""),
    ],
)
def test_a_target_that_is_missed_has_its_reason(made: tuple[str, str, str, str, float, float], words: str) -> None:
    *place, floor = made
    report = report_of(made_up(*place, floor=floor))  # type: ignore[arg-type]
    (table,) = tables(report)
    assert Text.from_markup(str(next(iter(table.columns[-1].cells)))).plain == words
    heading, products = (column for column in table.columns[2:4])
    assert (heading.header, products.header) == ("attnlayers, ms", "products, ms")
    assert [*products.cells] == [f"{floor:.3g}"]


def test_products_that_were_not_measured_have_no_column_and_give_no_reason() -> None:
    text = shown(report_of(made_up("book", "both", "torch", "PyTorch flash", 0.8, backend="cupy")))
    assert "not met: PyTorch flash 0.7" in text
    assert "products" not in text


@pytest.mark.parametrize("place", [("long", "both", "torch", "PyTorch math"), ("training", "step", "torch", "PyTorch")])
def test_a_target_that_is_missed_on_a_device_has_the_rates_of_ours(place: tuple[str, str, str, str]) -> None:
    missed = replace(made_up(*place, 2.0, backend="cupy"), work=(6 * 10**9, 3 * 10**7))  # in 2 ms
    (table,) = tables(report_of(missed))
    words = Text.from_markup(str(next(iter(table.columns[-1].cells)))).plain
    assert words == f"not met: {place[3]} 1\n(3 Tflop/s, 15 GB/s)"
    assert str(table.caption).startswith("Below a target that is not met: what attnlayers reaches")


@pytest.mark.parametrize(
    ("more", "words"),
    [({}, "not met: 200\n(50.5 above)"), ({"arrays": 9.0}, "not met: 200\n(50.5 above; arrays 9.0 at their peak)")],
)
def test_memory_that_is_missed_has_its_reason(more: dict[str, float], words: str) -> None:
    report = report_of()
    report.memory.append({"case": "huge", "backend": "numpy", "contender": "attnlayers", "megabytes": 250.5} | more)
    (table,) = tables(report)
    assert Text.from_markup(str(next(iter(table.columns[-1].cells)))).plain == words


@pytest.mark.parametrize(("found", "arrays"), [(201.0, [{"arrays": 7.0}]), (200.0, [{}]), ("refuses", [{}])])
def test_arrays_are_measured_where_memory_is_missed(
    found: float | str, arrays: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_process(function: object, *arguments: object, **options: object) -> object:
        return 7.0 if function is run.added_arrays else {"attnlayers": found}

    monkeypatch.setattr(run, "in_process", in_process)
    report = report_of()
    assert len([*measure(report, [Part("memory", TABLE[-1], "numpy", "float32", "attnlayers")])]) == 1
    assert [{key: entry[key] for key in entry if key == "arrays"} for entry in report.memory] == arrays


def test_cuda_is_open_until_a_duel_on_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_process(*arguments: object, **options: object) -> Outcome:
        return Outcome([made_up("book", "both", "torch", "PyTorch", 0.5)])

    monkeypatch.setattr(run, "in_process", in_process)
    report = report_of()
    open_until_then = "not yet measured: no duel on it has ended"
    assert [*measure(report, [Part("time", TABLE[0], "numpy", "float32", "torch")])]
    assert report.to_json()["cuda"] == open_until_then
    monkeypatch.setattr(run, "get_backend", lambda name: SimpleNamespace(on_host=False))
    assert [*measure(report, [Part("time", TABLE[0], "cupy", "float32", "torch")])]
    assert report.to_json()["cuda"] == "measured"


def test_a_precision_is_told() -> None:
    rows = [
        replace(made_up("mid", "both", "torch", name, 0.5, backend="cupy"), precision=precision)
        for name, precision in (("PyTorch", "3xTF32"), ("PyTorch math, TF32", "TF32"), ("PyTorch flash", None))
    ]
    (table,) = tables(report_of(*rows))
    assert [column.header for column in table.columns[3:-1]] == [
        "PyTorch, 3xTF32",
        "PyTorch math, TF32",
        "PyTorch flash",
    ]
    assert "rounds float32" in str(table.caption)
    assert [row["precision"] for row in report_of(*rows).to_json()["rows"]] == ["3xTF32", "TF32", None]


def test_what_was_refused_is_told_once() -> None:
    report = report_of()
    parts = ("long, cupy float16, torch", "long, cupy bfloat16, torch", "mid, cupy float16, torch")
    report.refused += [{"part": part, "way": "cuDNN", "reason": "no module"} for part in parts]
    report.refused.append({"part": parts[0], "way": "cuDNN", "reason": "another"})
    assert refused(report) == ["refused: cuDNN: no module (long, mid)", "refused: cuDNN: another (long)"]


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


def test_the_picture_marks_the_products() -> None:
    rows = [made_up("mid", "both", "torch", "PyTorch", 1.05, floor=0.93), made_up("mid", "both", "numpy", "NumPy", 0.5)]
    bars = bench_figure(report_of(*rows)).axes[-1]
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["PyTorch", "NumPy", "products alone / peer"]
    assert {y for lines in bars.collections for line in lines.get_segments() for _, y in line} >= {0.93}
    assert "products" not in str(bench_figure(report_of(rows[1])).axes[-1].get_legend().get_texts())


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
    (failure,) = report.failed
    assert failure.pop("traceback").endswith("raise outcome\nRuntimeError: gone\n")
    assert failure == {
        "part": parts[1].title, "contender": "jax", "stage": "its process", "reason": "RuntimeError: gone",
    }  # fmt: skip


def test_a_limit_of_time() -> None:
    report = report_of()
    parts = [Part("time", TABLE[0], "numpy", "float32", "torch")]
    assert list(measure(report, parts, minutes=-1)) == []
    assert report.left_out == [{"part": parts[0].title, "contender": "torch", "reason": "the -1 minutes were over"}]


def test_the_picture_has_no_place_for_what_was_not_measured() -> None:
    sweep = [made_up(f"T={T}", "both", "torch", "PyTorch", 0.9, backend="numpy") for T in (64, 256)]
    cases = [made_up("book", "both", "torch", "PyTorch", 1.4, backend=b) for b in ("numpy", "cupy")]
    for rows, panels, width in ((sweep, 1, 6), (cases[:1], 1, 8), (cases, 2, 8), (sweep + cases, 3, 14), ([], 0, 8)):
        figure = bench_figure(report_of(*rows))
        assert len(figure.axes) == panels
        assert figure.get_size_inches()[0] == width
        assert all(axes.lines or axes.patches for axes in figure.axes)
