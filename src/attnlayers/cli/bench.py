"""`attnlayers bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from ..bench.run import Report

WIDTH = 180
"""Columns of the table where the output is no terminal."""


def bench(
    cases: Annotated[
        str | None, typer.Option(help="Some of the cases, as in book,short [all].", show_default=False)
    ] = None,
    backends: Annotated[
        str | None, typer.Option(help="numpy, cupy or both [what can be used].", show_default=False)
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help="Some of torch, jax, numpy and loops [all].", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for bench.json and bench.png [no files].", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each duel of two contenders on one case.")] = 4.0,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="After so many, begin nothing new [no limit].", show_default=False)
    ] = None,
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
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=len(parts))
            for part in measure(report, parts, minutes):
                bar.update(task, description=part.title, completed=parts.index(part))
                if out is not None:
                    _write_json(report, out)
    finally:  # interrupted, it shows what there is
        _show(report, console, out)
    if report.wrong:
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


def _show(report: Report, console: Console, out: Path | None) -> None:
    from ..bench.report import last_line, tables

    for table in tables(report):
        console.print(table)
    console.print(f"CUDA: {report.cuda}", markup=False, soft_wrap=True)
    for heading, text in report.machine.items():
        console.print(f"{heading}: {text}", markup=False, soft_wrap=True)
    for entry in report.wrong:
        console.print(f"wrong: {entry['part']}: {entry['contender']}: {entry['reason']}", markup=False, soft_wrap=True)
    if out is not None:
        from ..bench.picture import bench_figure
        from ..training.files import write_whole
        from ..training.plots import save_figure

        _write_json(report, out)
        write_whole(out / "bench.png", lambda path: save_figure(bench_figure(report), path))
        console.print(f"{out}: bench.json, bench.png", markup=False, soft_wrap=True)
    console.print(last_line(report), markup=False, soft_wrap=True)
