"""Pictures of a training and of what a model attends to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..translation import Translation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "MS Gothic", "IPAexGothic")


LARGEST = 26.0
"""Inches of a heat map's side; at 150 dots an inch, a picture has 4,000 pixels at most."""

CELLS = 1000
"""Rows and columns of a heat map that are drawn; of several that fall on one, the largest weight."""

LABELS = 100
"""Tokens that are written along a side of a heat map; of more, each second or third."""


def training_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses and accuracies over steps.

    Parameters
    ----------
    metrics : sequence of mapping
        Rows of ``metrics.csv``; None stands for what a row does not tell. A row with a held-out loss ends an epoch.
    """
    figure = _figure((7, 4.5))
    losses = [(row["step"], row["loss"]) for row in metrics if row["loss"] is not None and row["held_out_loss"] is None]
    ends = [row for row in metrics if row["held_out_loss"] is not None]
    steps = [row["step"] for row in ends]
    left = figure.add_subplot()
    left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1.2, label="training loss")
    left.plot(steps, [row["held_out_loss"] for row in ends], "s-", color="tab:red", label="held-out loss")
    left.set_yscale("log")
    left.set_title("Training")
    left.set_xlabel("step")
    left.set_ylabel("loss, mean for each token")
    left.grid(alpha=0.3)
    right = left.twinx()
    if any(row.get("perplexity") is not None for row in ends):
        right.plot(steps, [row["perplexity"] for row in ends], "o-", color="tab:orange", label="perplexity")
        right.set_ylabel("perplexity of held-out text")
    else:
        _plot_answers(right, steps, ends)
    lines = [*left.get_lines(), *right.get_lines()]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize=8)
    return figure


def _plot_answers(panel: Axes, steps: Sequence[int], ends: Sequence[Mapping[str, Any]]) -> None:
    """Shares of answers that are right, and chrF, at the ends of epochs."""
    shares = [100 * row["accuracy"] for row in ends]
    panel.plot(steps, shares, "o-", color="tab:orange", label="exact match")
    for step, percent in zip(steps, shares, strict=True):
        panel.annotate(
            f"{percent:.2f}%", (step, percent), textcoords="offset points", xytext=(-8, 2), ha="right", fontsize=8
        )
    if any(row["chrf"] is not None for row in ends):
        panel.plot(steps, [row["chrf"] for row in ends], "^-", color="tab:green", label="chrF")
    panel.set_ylim(-3, 108)
    panel.set_ylabel("answers to held-out pairs, of 100")


def attention_figure(translations: Sequence[Translation]) -> Figure:
    """A heat map for each answer: the source across, the answer downwards."""
    columns = min(2, len(translations))
    rows = ceil(len(translations) / columns)
    width = min(max(3.0, *(0.24 * len(t.source_tokens) for t in translations)), LARGEST / columns - 1.2)
    height = min(max(2.0, *(0.24 * len(t.target_tokens) for t in translations)), LARGEST / rows - 0.9)
    figure = _figure((columns * (width + 0.8) + 0.8, rows * (height + 0.9)))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, answer in zip(panels, translations, strict=False):
        image = _heat_map(panel, answer.weights, answer.source_tokens, answer.target_tokens, (width, height), 9)
        panel.set_xlabel("source")
        panel.set_ylabel("output")
    for panel in list(panels)[len(translations) :]:
        panel.remove()
    figure.colorbar(image, ax=figure.axes, label="attention weight", shrink=0.8)
    return figure


def heads_figure(answer: Translation) -> Figure:
    """A heat map for each head of each layer of one answer: heads across, layers downwards."""
    if answer.heads is None:
        raise ValueError("`answer` must come from a model with several heads, got one that has no weights of heads")
    layers, heads = answer.heads.shape[:2]
    # Beside each other tokens have room only where there are few.
    width = min(4.0, max(1.6, 0.12 * len(answer.source_tokens)), LARGEST / heads - 0.2)
    height = min(4.0, max(1.2, 0.12 * len(answer.target_tokens)), LARGEST / layers - 0.5)
    figure = _figure((heads * width + 1.2, layers * (height + 0.4) + 0.5))
    panels = figure.subplots(layers, heads, squeeze=False)
    for (layer, head), panel in np.ndenumerate(panels):
        across = answer.source_tokens if layer == layers - 1 else []
        down = answer.target_tokens if head == 0 else []
        image = _heat_map(panel, answer.heads[layer, head], across, down, (width, height), 6)
        panel.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
    figure.colorbar(image, ax=figure.axes, label="attention weight", shrink=0.8)
    return figure


def _heat_map(
    panel: Axes,
    weights: np.ndarray,
    across: Sequence[str],
    down: Sequence[str],
    inches: tuple[float, float],
    font_size: int,
) -> AxesImage:
    """Draw weights (rows, columns) with the tokens `across` the columns and `down` the rows; none are not written."""
    rows, columns = weights.shape
    limits = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    image = panel.imshow(_thinned(weights), cmap="viridis", vmin=0, vmax=1, aspect="auto", extent=limits)
    for set_ticks, tokens, side in ((panel.set_xticks, across, inches[0]), (panel.set_yticks, down, inches[1])):
        room = max(1, min(LABELS, int(side * 110 / font_size)))  # a line of text takes font_size / 72 inches, and space
        places = range(0, len(tokens), -(-len(tokens) // room) or 1)
        set_ticks(places, [_cut(tokens[place]) for place in places], parse_math=False, fontfamily=_fonts())
    panel.tick_params(length=0, labelsize=font_size)
    if max(map(len, across), default=0) > 2:
        panel.tick_params(axis="x", rotation=60)
    return image


def _thinned(weights: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        count = weights.shape[axis]
        if count > CELLS:
            starts = np.arange(CELLS) * count // CELLS
            weights = np.maximum.reduceat(weights, starts, axis=axis)
    return weights


def _cut(token: str) -> str:
    return token if len(token) <= 24 else token[:23] + "…"


def picture_formats() -> list[str]:
    """The suffixes of files, without their dot, that `save_figure` can write."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(FigureCanvasBase.get_supported_filetypes())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file; a character that no installed font has becomes a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=150)


def _figure(size: tuple[float, float]) -> Figure:
    # No pyplot: nothing global is opened or set, and no display is asked for.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _fonts() -> list[str]:
    """The first fonts to look for a token's characters in; matplotlib warns of those that are not installed."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]
