"""The picture: time against sequence length, and ratios by case."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from ..training.plots import _figure
from .duel import OURS
from .outcome import Row
from .products import PRODUCTS
from .report import contenders, groups
from .run import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    OURS: "#d62728",
    "PyTorch": "#1f77b4",
    "JAX": "#2ca02c",
    "NumPy": "#7f7f7f",
    "CuPy, plain": "#7f7f7f",
    "book's loops": "#8c564b",
    "PyTorch, TF32": "#1f77b4",
    "PyTorch, float32": "#aec7e8",
    "PyTorch flash": "#393b79",
    "PyTorch efficient": "#17becf",
    "PyTorch cudnn": "#9467bd",
    "PyTorch math": "#ff7f0e",
    "PyTorch math, TF32": "#ffbb78",
    "JAX, TF32": "#2ca02c",
    "JAX, float32": "#98df8a",
}
DEVICES = {"numpy": "CPU", "cupy": "CUDA"}
STYLES = {"numpy": "-", "cupy": "--"}
LABELLED = 4
"""Contenders up to which bars are wide enough for a number above each."""


def bench_figure(report: Report) -> Figure:
    """Left: forward and backward against T, for every contender and device. Right: ratios of each case.

    What was not measured has no place in it.
    """
    rows = [row for row in report.rows if row.dtype == "float32"]
    sweep = [row for row in rows if row.case.startswith("T=")]
    cases = [row for row in rows if not row.case.startswith("T=")]
    backends = list(dict.fromkeys(row.backend for row in cases))
    widths = [6.0] * bool(sweep) + [8.0] * bool(cases) or [8.0]
    figure: Figure = _figure((sum(widths), 1.2 + 4.8 * max(1, len(backends))))
    grid = figure.add_gridspec(max(1, len(backends)), len(widths), width_ratios=widths)
    if sweep:  # one panel for all devices
        _against_length(figure.add_subplot(grid[:, 0]), sweep)
    for place, backend in enumerate(backends):
        _bars(figure.add_subplot(grid[place, -1]), [row for row in cases if row.backend == backend], backend)
    if not rows:
        figure.text(0.5, 0.4, "nothing was measured in float32", ha="center", va="center")
    parts = [report.machine.get("date", ""), report.machine.get("processor", "")]
    figure.suptitle(f"attnlayers {report.machine.get('attnlayers', '')}, float32, {', '.join(filter(None, parts))}")
    return figure


def _against_length(panel: Any, rows: list[Row]) -> None:
    panel.set_title("forward + backward, 4 heads of size 64")
    panel.set_xlabel("sequence length T")
    panel.set_ylabel("time, ms")
    panel.grid(alpha=0.3, which="both", linewidth=0.5)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    lines: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        T = int(row.case[2:])
        lines.setdefault((OURS, row.backend), {}).setdefault(T, []).extend(row.ours)
        lines.setdefault((row.contender, row.backend), {}).setdefault(T, []).extend(row.theirs)
    for (name, backend), points in lines.items():
        panel.plot(
            list(points),
            [1e3 * median(seconds) for seconds in points.values()],
            STYLES.get(backend, ":"),
            marker="o",
            markersize=5,
            linewidth=2.4 if name == OURS else 1.5,
            color=COLOURS.get(name),
            label=f"{name}, {DEVICES.get(backend, backend)}",
            zorder=3 if name == OURS else 2,
        )
    lengths = sorted({int(row.case[2:]) for row in rows})
    panel.set_xticks(lengths, [str(T) for T in lengths])
    panel.legend(fontsize=9, frameon=False)


def _bars(panel: Any, rows: list[Row], backend: str) -> None:
    names = contenders(rows)
    shown = {
        case: some
        for (case, direction), some in groups(rows).items()
        if direction in ("both", "step") or (direction == "forward" and case == "decode")
    }
    panel.set_title(f"{OURS} / peer on {DEVICES.get(backend, backend)}: forward + backward; below 1 is faster")
    width = 0.8 / max(1, len(names))
    for place, some in enumerate(shown.values()):
        by_name = {row.contender: row for row in some}
        present = [name for name in names if name in by_name]
        for i, name in enumerate(present):
            row = by_name[name]
            x = place + width * (i - (len(present) - 1) / 2)
            low, high = row.quartiles
            errors = [[max(0.0, row.ratio - low)], [max(0.0, high - row.ratio)]]
            panel.bar(
                x, row.ratio, 0.9 * width, color=COLOURS.get(name), yerr=errors, ecolor="#444", error_kw={"lw": 1}
            )
            if row.floor is not None:
                ends = x - 0.45 * width, x + 0.45 * width
                panel.hlines(row.floor, *ends, color="white", linewidth=4, zorder=3)
                panel.hlines(row.floor, *ends, color="black", linewidth=2, zorder=4)
            if len(names) <= LABELLED:
                panel.annotate(
                    f"{row.ratio:.2f}", (x, max(row.ratio, high)), textcoords="offset points", xytext=(0, 3),
                    ha="center", va="bottom", fontsize=7.5, rotation=90, zorder=5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
                )  # fmt: skip
    panel.axhline(1.0, color="black", linewidth=1.2)
    panel.set_xticks(range(len(shown)), ["decode,\nforward" if case == "decode" else case for case in shown])
    top = max((row.quartiles[1] for some in shown.values() for row in some), default=1.0)
    panel.set_ylim(0, 1.25 * max(1.0, top))
    panel.set_xlim(-0.6, max(1, len(shown)) - 0.4)
    panel.set_ylabel("ratio of times")
    panel.grid(axis="y", alpha=0.3, linewidth=0.5)
    panel.set_axisbelow(True)
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=COLOURS.get(name), label=name) for name in names]
    if any(row.floor is not None for row in rows):
        handles.append(Line2D([], [], color="black", linewidth=2, label=f"{PRODUCTS} alone / peer"))
    if handles:
        panel.legend(handles=handles, fontsize=9, frameon=False, ncols=min(5, len(handles)), loc="upper left")
