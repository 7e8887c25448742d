"""The table on the screen, and the line that says who took part."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from .cases import NAMES
from .duel import OURS
from .outcome import Row
from .products import PRODUCTS
from .run import Report
from .targets import MEMORY_MB, verdicts

DIRECTIONS = {"forward": "forward", "backward": "backward", "both": "forward + backward", "step": "training step"}

CAPTION = (
    f"{PRODUCTS}: NumPy's matrix products of the case and nothing else. Below a target that is not met: "
    f"{PRODUCTS} / peer, and what is left of {OURS} / peer (exp and other passes, calls)"
)

CAPTION_OF_WORK = (
    f"Below a target that is not met: what {OURS} reaches, as operations of the case's products, and bytes of its "
    "inputs and outputs (training: of weights, gradients and Adam's means), each counted once, over its time"
)

HOST_TIME = "the host's time of CuPy needs no device: python -m benchmarks.host_time, in a checkout of attnlayers"
"""Said where CUDA was not measured."""


def tables(report: Report) -> list[Table]:
    """One for each backend and dtype, and one of memory."""
    found = []
    for backend, dtype in dict.fromkeys((row.backend, row.dtype) for row in report.rows):
        rows = [row for row in report.rows if (row.backend, row.dtype) == (backend, dtype)]
        found.append(_table(f"Time on {backend}, {dtype}: {OURS} / peer, median (quartiles); below 1 is faster", rows))
    if report.memory:
        found.append(_memory(report))
    return found


PRECISION = "A contender that rounds float32 for its products says to what: TF32 (10 bits), or 3xTF32 (three products)"


def groups(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by case and direction, in the order of the cases."""
    rows = sorted(rows, key=lambda row: (_place(row.case), list(DIRECTIONS).index(row.direction)))
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.case, row.direction), []).append(row)
    return found


def contenders(rows: Iterable[Row]) -> list[str]:
    """Names of contenders, once each."""
    return list(dict.fromkeys(row.contender for row in rows))


def ours_ms(rows: Iterable[Row]) -> float:
    """Milliseconds of ours, over all rounds of some rows."""
    return 1e3 * median(second for row in rows for second in row.ours)


def products_ms(rows: Iterable[Row]) -> float | None:
    """Milliseconds of the products alone, over all rounds of some rows; None where they were not measured."""
    seconds = [second for row in rows for second in row.products or ()]
    return 1e3 * median(seconds) if seconds else None


def verdict(rows: list[Row]) -> str:
    """Which targets are met and which are not."""
    parts = []
    for row, target, met in verdicts(rows):
        bound = f"{row.contender} {target:.2g}"
        if met:
            parts.append(f"[green]met: {bound}[/]")
        elif row.ratio > target:
            parts.append(f"[red]not met: {bound}[/]{_reason(row)}")
        else:
            parts.append(f"[red]not met: the error is more than twice {row.contender}'s[/]")
    return "\n".join(parts)


def _reason(row: Row) -> str:
    """How much of a ratio the products alone are, and what is left of it; where not measured, the rates of ours."""
    if row.floor is None:
        if row.work is None:
            return ""
        operations, moved = (count / median(row.ours) for count in row.work)
        return f"\n({operations / 1e12:.3g} Tflop/s, {moved / 1e9:.3g} GB/s)"
    digits = 2 if row.ratio >= 0.1 else 3
    return f"\n({PRODUCTS} {row.floor:.{digits}f}, rest {row.ratio - row.floor:.{digits}f})"


def _excess(entry: dict[str, Any]) -> str:
    """By how much memory misses its target, and how much of all of it are arrays, where that was measured."""
    above = f"{entry['megabytes'] - MEMORY_MB:,.1f} above"
    return f"\n({above})" if "arrays" not in entry else f"\n({above}; arrays {entry['arrays']:,.1f} at their peak)"


def last_line(report: Report) -> str:
    """Who took part, and who did not and why."""
    peers = contenders(report.rows)
    devices = list(dict.fromkeys(row.backend for row in report.rows))
    line = f"measured on {', '.join(devices) or 'nothing'} against {', '.join(peers) or 'nobody'}"
    reasons: dict[str, list[str]] = {}
    for entry in report.left_out:
        reasons.setdefault(f"{entry['contender']}: {entry['reason']}", []).append(entry["part"])
    absent = [f"{reason}{'' if parts == ['all'] else f' ({_few(parts)})'}" for reason, parts in reasons.items()]
    return f"{line}; left out: {'; '.join(absent) or 'nothing'}"


def refused(report: Report) -> list[str]:
    """A line for each reason why one of our own ways refused, with the cases."""
    parts: dict[tuple[str, str], list[str]] = {}
    for entry in report.refused:
        parts.setdefault((entry["way"], entry["reason"]), []).append(entry["part"])
    return [f"refused: {way}: {reason} ({_few(some)})" for (way, reason), some in parts.items()]


def _few(parts: list[str]) -> str:
    names = list(dict.fromkeys(part.partition(",")[0] for part in parts))
    return ", ".join(names)


def _place(case: str) -> tuple[int, int]:
    if case.startswith("T="):
        return NAMES.index("sweep"), int(case[2:])
    return (NAMES.index(case) if case in NAMES else len(NAMES)), 0


def _table(title: str, rows: list[Row]) -> Table:
    names = contenders(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    table.add_column("direction")
    table.add_column(f"{OURS}, ms", justify="right")
    with_products = products_ms(rows) is not None
    if with_products:
        table.add_column(f"{PRODUCTS}, ms", justify="right")
        table.caption, table.caption_justify = CAPTION, "left"
    elif any(row.work for row in rows):
        table.caption, table.caption_justify = CAPTION_OF_WORK, "left"
    precisions = {row.contender: row.precision for row in rows if row.precision}
    for name in names:
        precision = precisions.get(name, "")
        table.add_column(name if precision in name else f"{name}, {precision}", justify="right")
    if precisions:
        table.caption = f"{table.caption}\n{PRECISION}" if table.caption else PRECISION
        table.caption_justify = "left"
    table.add_column("target")
    last = ""
    for (case, direction), some in groups(rows).items():
        if last not in ("", case):
            table.add_section()
        by_name = {row.contender: row for row in some}
        cells = [_cell(by_name[name]) if name in by_name else "" for name in names]
        if with_products:
            products = products_ms(some)
            cells.insert(0, "" if products is None else f"{products:.3g}")
        heading = "" if case == last else case
        table.add_row(heading, DIRECTIONS[direction], f"{ours_ms(some):.3g}", *cells, verdict(some))
        last = case
    return table


def _cell(row: Row) -> str:
    low, high = row.quartiles
    return f"{row.ratio:.2f} ({low:.2f}–{high:.2f})" if row.ratio >= 0.1 else f"{row.ratio:.3f} ({low:.3f}–{high:.3f})"


def _memory(report: Report) -> Table:
    table = Table(title="Memory: added to the peak by forward + backward, without inputs and outputs")
    for name in ("case", "backend", "contender"):
        table.add_column(name)
    table.add_column("MB", justify="right")
    table.add_column("target")
    for entry in report.memory:
        megabytes = entry.get("megabytes")
        target = ""
        if megabytes is not None and entry["contender"] == OURS:
            met = megabytes <= MEMORY_MB
            target = f"[green]met: {MEMORY_MB:.0f}[/]" if met else f"[red]not met: {MEMORY_MB:.0f}[/]{_excess(entry)}"
        shown = f"{megabytes:,.1f}" if megabytes is not None else f"left out: {entry['reason']}"
        table.add_row(entry["case"], entry["backend"], entry["contender"], shown, target)
    return table
