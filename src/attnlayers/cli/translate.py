"""`attnlayers translate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..translation import Translation


def translate(
    run: Annotated[Path, typer.Argument(help="The run folder of a training.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="What to translate; lines of standard input if none.")
    ] = None,
    heatmap: Annotated[Path | None, typer.Option(help="Draw what the model attended to, up to 12 answers.")] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="Draw each head of each layer instead, of the first answer.")
    ] = False,
    beam: Annotated[int, typer.Option(help="Answers that are followed side by side.", min=1)] = 1,
) -> None:
    """Translate with a trained model, a line for each text."""
    from ..training import RunError, RunFolder
    from ..training.files import write_whole
    from ..training.plots import attention_figure, heads_figure, picture_formats, save_figure
    from ..translation import translate as answer

    folder = RunFolder.open(run)
    if heads and (heatmap is None or folder.settings.architecture != "transformer"):
        raise RunError(f"--heads needs --heatmap FILE and a transformer, got {folder.settings.architecture}")
    if heatmap is not None and heatmap.suffix[1:].lower() not in picture_formats():
        formats = ", ".join(f".{name}" for name in picture_formats())
        raise RunError(f"--heatmap must name a file that ends in one of {formats}, got {heatmap}")
    model = folder.load_model()
    drawn: list[Translation] = []
    for some in [texts] if texts else _lines():
        answers = answer(model, folder.vocabulary, some, reverse=folder.settings.reverse, beam=beam)
        for one in answers:
            typer.echo(one.text)
        drawn += answers[: 12 - len(drawn)]
    if heatmap is not None and drawn:
        figure = heads_figure(drawn[0]) if heads else attention_figure(drawn)
        write_whole(heatmap, lambda path: save_figure(figure, path))


def _lines() -> Iterator[list[str]]:
    """Standard input: line by line where somebody types, else many at a time."""
    from ..data import DataError

    def decoded() -> Iterator[str]:
        for number, line in enumerate(sys.stdin.buffer, 1):
            try:
                yield line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"line {number} of standard input is not UTF-8: {error.reason}") from error

    lines = decoded()
    while some := list(islice(lines, 1 if sys.stdin.isatty() else 500)):
        yield some
