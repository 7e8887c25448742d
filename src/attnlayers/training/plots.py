"""Pictures of a training and of what a model attends to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._terminal import printable
from ..translation import Translation
from .fonts import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from ..page.weights import Attention

PIXELS = 4000
"""Pixels of a picture's longer side at most; viewers and browsers scale larger ones down or refuse them."""

DPI = 150
"""Dots an inch, where that makes no more pixels: text of 6 points is still read."""

LARGEST = PIXELS / DPI - 0.6
"""Inches of all heat maps along a side, with room for the rest of the picture."""

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


def attention_figure(translations: Sequence[Translation], expected: Sequence[str] | None = None) -> Figure:
    """A heat map for each answer: the source across, the answer downwards.

    Parameters
    ----------
    translations : sequence of Translation
    expected : sequence of str, optional
        The right answers, to be shown beside those that were given.
    """
    columns = min(2, len(translations))
    rows = ceil(len(translations) / columns)
    width = min(max(3.0, *(0.24 * len(t.source_tokens) for t in translations)), LARGEST / columns - 1.2)
    height = min(max(2.0, *(0.24 * len(t.target_tokens) for t in translations)), LARGEST / rows - 1.3)
    figure = _figure((columns * (width + 0.8) + 0.8, rows * (height + (0.9 if expected is None else 1.3))))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    titles = [""] * len(translations)
    if expected is not None:
        room = int(width * 72 / (9 * 0.6))  # characters of 9 points, six tenths as wide as high
        titles = [_judged(t.text, right, room) for t, right in zip(translations, expected, strict=True)]
    fonts = families("".join([*titles, *(c for t in translations for c in (*t.source_tokens, *t.target_tokens))]))
    for panel, answer, title in zip(panels, translations, titles, strict=False):
        image = _heat_map(
            panel, answer.weights, answer.source_tokens, answer.target_tokens, (width, height), 9, 1.0, fonts
        )
        panel.set_xlabel("source")
        panel.set_ylabel("output")
        panel.set_title(title, fontsize=9, fontfamily=fonts, parse_math=False)
    for panel in list(panels)[len(translations) :]:
        panel.remove()
    figure.colorbar(image, ax=figure.axes, label="attention weight", shrink=0.8)
    return figure


def _judged(given: str, right: str, room: int) -> str:
    """What was answered and what is right, one below the other where they differ."""
    given, right = (_cut(printable(text), room - 7) for text in (given, right))
    return f"right: {right}" if given == right else f"given: {given}\nright: {right}"


def heads_figure(attentions: Sequence[Attention]) -> Figure:
    """A heat map for each head of each layer: heads across, layers downwards, one attention below the other.

    Each head has its own scale, up to its largest weight, which its title names.
    """
    if not any(one.weights.shape[0] * one.weights.shape[1] > 1 for one in attentions):
        raise ValueError("`attentions` must have several heads or layers, got none that has")
    levels = [(one, layer) for one in attentions for layer in range(one.weights.shape[0])]
    heads = max(one.weights.shape[1] for one in attentions)
    across, down = (max(len(tokens(one)) for one in attentions) for tokens in (_keys, _queries))
    # Beside each other tokens have room only where there are few.
    width = max(0.2, min(4.0, max(1.6, 0.12 * across), LARGEST / heads - 0.2))
    height = max(0.2, min(4.0, max(1.2, 0.12 * down), LARGEST / len(levels) - 0.7))
    figure = _figure((heads * width + 1.2, len(levels) * (height + 0.7)))
    panels = figure.subplots(len(levels), heads, squeeze=False)
    fonts = families("".join(token for one in attentions for token in (*one.keys, *one.queries)))
    for row, (one, layer) in zip(panels, levels, strict=True):
        for head, panel in enumerate(row):
            if head >= one.weights.shape[1]:
                panel.remove()
                continue
            weights = one.weights[layer, head]
            is_last = layer == one.weights.shape[0] - 1
            _heat_map(
                panel, weights, one.keys if is_last else [], [] if head else one.queries, (width, height), 6,
                float(weights.max()), fonts,
            )  # fmt: skip
            panel.set_title(f"{one.name}, layer {layer + 1}, head {head + 1}\nup to {weights.max():.2f}", fontsize=7)
    return figure


def _keys(attention: Attention) -> list[str]:
    return attention.keys


def _queries(attention: Attention) -> list[str]:
    return attention.queries


def _heat_map(
    panel: Axes,
    weights: np.ndarray,
    across: Sequence[str],
    down: Sequence[str],
    inches: tuple[float, float],
    font_size: int,
    largest: float,
    fonts: list[str],
) -> AxesImage:
    """Draw weights (rows, columns) with the tokens `across` the columns and `down` the rows; none are not written.

    Full colour is the weight `largest`.
    """
    rows, columns = weights.shape
    limits = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    image = panel.imshow(_thinned(weights), cmap="viridis", vmin=0, vmax=largest or 1, aspect="auto", extent=limits)
    for set_ticks, tokens, side in ((panel.set_xticks, across, inches[0]), (panel.set_yticks, down, inches[1])):
        room = max(1, min(LABELS, int(side * 110 / font_size)))  # a line of text takes font_size / 72 inches, and space
        places = range(0, len(tokens), -(-len(tokens) // room) or 1)
        set_ticks(places, [_cut(tokens[place]) for place in places], parse_math=False, fontfamily=fonts)
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


def _cut(text: str, room: int = 24) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"


def picture_formats() -> list[str]:
    """The suffixes of files, without their dot, that `save_figure` can write."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(FigureCanvasBase.get_supported_filetypes())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file of 4,000 pixels a side at most."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # `families` has said it
        figure.savefig(path, dpi=min(DPI, PIXELS / max(figure.get_size_inches())))


def _figure(size: tuple[float, float]) -> Figure:
    # No pyplot: nothing global is opened or set, and no display is asked for.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
