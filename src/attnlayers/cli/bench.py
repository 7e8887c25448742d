"""`attnlayers bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from .screen import NowAndThen, Screen, described, text_column

if TYPE_CHECKING:
    from ..bench.run import Report

_option = described()

WIDTH = 180
"""Columns of the table where the output is no terminal."""


def bench(
    cases: Annotated[str | None, _option("Some of the cases, as in book,short [all].")] = None,
    backends: Annotated[str | None, _option("numpy, cupy or both [what can be used].")] = None,
    peers: Annotated[str | None, _option("Some of torch, jax, numpy and loops [all].")] = None,
    out: Annotated[Path | None, _option("A folder for bench.json and bench.png [no files].")] = None,
    seconds: Annotated[float, _option("For each duel of two contenders on one case [4].", min=0.01)] = 4.0,
    minutes: Annotated[float | None, _option("After so many, begin nothing new [no limit].", min=0)] = None,
) -> None:
    """Time attention against PyTorch, JAX, NumPy and the book's loops, on all that can be used here."""
    from attnbackends import available_backends, get_backend

    from ..bench import cases as known
    from ..bench.peers import PEERS
    from ..bench.run import OPEN, begin, measure, plan

    some = _names("--cases", cases, known.NAMES)
    usable = {name: found for name, found in available_backends().items() if name in ("numpy", "cupy")}
    on = _names("--backends", backends, tuple(usable))
    for name in on if backends else ():
        get_backend(name)  # asked for and not usable: its error has the cause
    absent = [name for name in on if not usable[name].usable]
    on = tuple(name for name in on if usable[name].usable)
    if out is not None:
        import matplotlib  # noqa: F401  to miss it now, and not when everything is measured

        out.mkdir(parents=True, exist_ok=True)
    report, there = begin(on, _names("--peers", peers, tuple(PEERS)), seconds)
    for name in absent:
        report.left_out.append({"part": "all", "contender": name, "reason": usable[name].detail})
    if "cupy" not in on:
        cause = "not asked for" if usable["cupy"].usable else " ".join(usable["cupy"].detail.split())
        report.cuda = f"{OPEN}: {cause}"
    parts = plan(known.chosen(some), known.TRAINING in some, on, there)
    console = Screen()
    if not console.is_terminal:
        console = Screen(width=WIDTH)
    columns = (text_column("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn())
    now_and_then = NowAndThen(Screen(stderr=True).print)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=len(parts))
            for part in measure(report, parts, minutes):
                done = parts.index(part)
                bar.update(task, description=part.title, completed=done)
                if not console.is_terminal:
                    now_and_then(f"{done}/{len(parts)}  {part.title}")
                if out is not None:
                    _write_json(report, out)
    finally:  # interrupted, it shows what there is
        _show(report, console, out)
    if report.wrong or report.failed:
        raise typer.Exit(1)


def _names(option: str, given: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if given is None:
        return known
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = ", ".join(unknown) or "nothing"
        raise typer.BadParameter(
            f"expected some of {', '.join(known)}, with commas between them, got {got}", param_hint=option
        )
    return tuple(name for name in known if name in names)


def _write_json(report: Report, out: Path) -> None:
    from ..training.files import write_whole

    text = json.dumps(report.to_json(), indent=1) + "\n"
    write_whole(out / "bench.json", lambda path: path.write_text(text, encoding="utf-8"))


def _show(report: Report, console: Screen, out: Path | None) -> None:
    from ..bench.report import HOST_TIME, last_line, refused, tables
    from ..bench.run import OPEN

    if out is not None:
        _write_json(report, out)
    for table in tables(report):
        console.print(table, soft_wrap=False)
    console.print(f"CUDA: {report.cuda}")
    if report.cuda.startswith(OPEN):
        console.print(HOST_TIME)
    for heading, text in report.machine.items():
        console.print(f"{heading}: {text}")
    for heading, entries in (("wrong", report.wrong), ("failed", report.failed)):
        for entry in entries:
            words = [entry[key] for key in ("part", "contender", "stage", "reason") if key in entry]
            console.print(f"{heading}: {': '.join(words)}")
    for line in refused(report):
        console.print(line)
    if out is not None:
        from ..bench.picture import bench_figure
        from ..training.files import write_whole
        from ..training.plots import save_figure

        write_whole(out / "bench.png", lambda path: save_figure(bench_figure(report), path))
        console.print(f"{out}: bench.json, bench.png")
    console.print(last_line(report))
