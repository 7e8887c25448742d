"""`attnlayers translate`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .._terminal import printable
from .screen import NowAndThen, Screen

if TYPE_CHECKING:
    from ..translation import Translation

LINES_AT_ONCE = 100
"""Lines of a file that are answered together: more are faster, fewer are there sooner."""

DRAWN = 12
"""Answers whose heat maps are drawn."""

PAGES = (".html", ".htm")
"""Ends of the names of files that are pages, not pictures."""


def translate(
    run: Annotated[Path, typer.Argument(help="The run folder of a training.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="What to translate; lines of standard input if none.")
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Draw what the model attended to, up to 12 answers: a picture or an .html page.")
    ] = None,
    each_head: Annotated[
        bool, typer.Option("--each-head", help="Draw each head of each layer instead, of the first answer.")
    ] = False,
    beam_size: Annotated[int, typer.Option(help="Answers that are followed side by side.", min=1)] = 1,
) -> None:
    """Translate with a trained model: one line for each text, a blank one where there is nothing to translate."""
    from ..models import Translator
    from ..training import RunError, RunFolder
    from ..training.files import write_whole
    from ..training.plots import attention_figure, heads_figure, picture_formats, save_figure
    from ..translation import translate as answer

    folder = RunFolder.open(run)
    if each_head and (heatmap is None or folder.settings.architecture != "transformer"):
        raise RunError(f"--each-head needs --heatmap FILE and a transformer, got {folder.settings.architecture}")
    page = heatmap is not None and heatmap.suffix.lower() in PAGES
    if heatmap is not None and not page and heatmap.suffix[1:].lower() not in picture_formats():
        formats = ", ".join([*PAGES, *(f".{name}" for name in picture_formats())])
        raise RunError(f"--heatmap must name a file that ends in one of {formats}, got {heatmap}")
    model = folder.load_model()
    if not isinstance(model, Translator):
        raise RunError(f"{run} holds a language model, which has no translations: attnlayers generate {run} goes on")

    def answers_to(some: list[str]) -> list[Translation]:
        return answer(model, folder.vocabulary, some, reverse=folder.settings.reverse, beam_size=beam_size)

    where, lines, at_once = "line {} of standard input", _lines(), 1 if sys.stdin.isatty() else LINES_AT_ONCE
    if texts:
        where, lines, at_once = "text {}", iter(texts), LINES_AT_ONCE
    drawn: list[Translation] = []
    failed = done = 0
    errors = Screen(stderr=True)
    now_and_then = NowAndThen(errors.print)
    columns = SpinnerColumn(), TextColumn("{task.completed:,} lines"), TimeElapsedColumn()
    # Where the answers themselves are seen, they are the progress.
    shown = errors.is_terminal and not sys.stdout.isatty() and not texts
    with Progress(*columns, console=errors, transient=True) if shown else nullcontext() as bar:
        task = bar.add_task("", total=None) if bar else None
        while some := list(islice(lines, at_once)):
            for found in _each(answers_to, some):
                done += 1
                if isinstance(found, Exception):
                    failed += 1
                    errors.print(f"attnlayers: error: {where.format(done)}: {' '.join(str(found).split())}")
                print("" if found is None or isinstance(found, Exception) else printable(found.text))
                if found is not None and not isinstance(found, Exception) and len(drawn) < DRAWN:
                    drawn.append(found)
            sys.stdout.flush()
            if bar and task is not None:
                bar.update(task, completed=done)
            elif not errors.is_terminal:
                now_and_then(f"{done:,} lines")
    if heatmap is not None and drawn and page:
        from ..page.model import model_page

        title = f"What {run.resolve().name} attended to"
        model_page(model, folder.vocabulary, drawn, reverse=folder.settings.reverse, title=title).save(heatmap)
    elif heatmap is not None and drawn:
        from ..page.model import attentions

        own = attentions(model, folder.vocabulary, drawn[0], reverse=folder.settings.reverse) if each_head else []
        figure = heads_figure(own) if each_head else attention_figure(drawn)
        write_whole(heatmap, lambda path: save_figure(figure, path))
    if failed:
        raise typer.Exit(1)


def _each(
    answers_to: Callable[[list[str]], list[Translation]], texts: list[str]
) -> list[Translation | Exception | None]:
    """For each text its answer, None for a blank one, or why there is none."""
    found: list[Translation | Exception | None] = [_refusal(text) for text in texts]
    places = [place for place, text in enumerate(texts) if text.strip() and found[place] is None]
    for place, one in zip(places, _answers(answers_to, [texts[place] for place in places]), strict=True):
        found[place] = one if isinstance(one, Exception) else (_refusal(one.text) or one)
    return found


def _answers(
    answers_to: Callable[[list[str]], list[Translation]], texts: list[str]
) -> Iterable[Translation | Exception]:
    """Together if that is possible, else one by one, to find out which one it is."""
    from ..data import DataError

    try:
        return answers_to(texts)
    except (DataError, MemoryError) as error:
        if len(texts) == 1:
            return [error if str(error) else MemoryError("there is not enough memory for it")]
    return [found for text in texts for found in _answers(answers_to, [text])]


def _refusal(text: str) -> Exception | None:
    """Why a text can be neither read nor written."""
    from ..data import DataError

    if any("\udc80" <= c <= "\udcff" for c in text):
        return DataError("it is not UTF-8; save the text as UTF-8")
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError as error:
        character = text[error.start].encode("unicode_escape").decode()
        return DataError(f"the output's encoding {sys.stdout.encoding} has no {character}; set PYTHONIOENCODING=utf-8")
    return None


def _lines() -> Iterator[str]:
    """Standard input, whatever its line ends; bytes that are no UTF-8 become surrogates, to be refused line by line."""
    stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
    for line in stream:
        yield line.removesuffix("\n")
