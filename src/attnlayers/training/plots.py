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
    from matplotlib.figure import Figure

_FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "MS Gothic", "IPAexGothic")


def training_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and accuracy over steps.

    Parameters
    ----------
    metrics : sequence of mapping
        Rows of ``metrics.csv``; None stands for what a row does not tell.
    """
    figure = _figure((7, 4.5))
    losses = [(row["step"], row["loss"]) for row in metrics if row["loss"] is not None]
    accuracies = [(row["step"], 100 * row["accuracy"]) for row in metrics if row["accuracy"] is not None]
    left = figure.add_subplot()
    left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1.5)
    left.set_yscale("log")
    left.set_xlabel("step")
    left.set_ylabel("loss, mean for each token", color="tab:blue")
    left.grid(alpha=0.3)
    right = left.twinx()
    right.plot(*zip(*accuracies, strict=True), "o-", color="tab:orange")
    for step, percent in accuracies:
        right.annotate(
            f"{percent:.2f}%", (step, percent), textcoords="offset points", xytext=(-8, 2), ha="right", fontsize=8
        )
    right.set_ylim(-3, 108)
    right.set_ylabel("exact match on held-out pairs, %", color="tab:orange")
    return figure


def attention_figure(translations: Sequence[Translation]) -> Figure:
    """A heat map for each answer: the source across, the answer downwards."""
    columns = min(2, len(translations))
    rows = ceil(len(translations) / columns)
    width = max(3.0, *(0.24 * len(t.source_tokens) for t in translations))
    height = max(2.0, *(0.24 * len(t.target_tokens) for t in translations))
    tokens = {"parse_math": False, "fontfamily": _fonts()}
    figure = _figure((columns * (width + 0.8) + 0.8, rows * (height + 0.9)))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, answer in zip(panels, translations, strict=False):
        image = panel.imshow(answer.weights, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(answer.source_tokens)), answer.source_tokens, **tokens)
        panel.set_yticks(range(len(answer.target_tokens)), answer.target_tokens, **tokens)
        panel.tick_params(length=0, labelsize=9)
        if max(map(len, answer.source_tokens)) > 2:
            panel.tick_params(axis="x", rotation=60)
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
    width = min(4.0, max(1.6, 0.12 * len(answer.source_tokens)))
    height = min(4.0, max(1.2, 0.12 * len(answer.target_tokens)))
    tokens = {"parse_math": False, "fontfamily": _fonts()}
    figure = _figure((heads * width + 1.2, layers * (height + 0.4) + 0.5))
    panels = figure.subplots(layers, heads, squeeze=False)
    for (layer, head), panel in np.ndenumerate(panels):
        image = panel.imshow(answer.heads[layer, head], cmap="viridis", vmin=0, vmax=1, aspect="auto")
        panel.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
        below, beside = answer.source_tokens, answer.target_tokens
        panel.set_xticks(range(len(below)), below if layer == layers - 1 else [], **tokens)
        panel.set_yticks(range(len(beside)), beside if head == 0 else [], **tokens)
        panel.tick_params(length=0, labelsize=6)
        if max(map(len, answer.source_tokens)) > 2:
            panel.tick_params(axis="x", rotation=60)
    figure.colorbar(image, ax=figure.axes, label="attention weight", shrink=0.8)
    return figure


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
