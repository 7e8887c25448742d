"""`attnlayers view`."""

from pathlib import Path
from typing import Annotated

import typer

from .._terminal import printable
from .translate import DRAWN, PAGES


def view(
    run: Annotated[Path, typer.Argument(help="The run folder of a training.")],
    texts: Annotated[
        list[str], typer.Argument(help="What to translate, or what a language model is to read: 12 texts at most.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("attention.html"),
    beam_size: Annotated[int, typer.Option(help="Answers that are followed side by side.", min=1)] = 1,
) -> None:
    """Write a page that shows what a model attends to in some texts, for any browser and without a network."""
    from ..models import Translator
    from ..page.model import model_page, text_page
    from ..training import RunError, RunFolder
    from ..translation import Translation, translate

    if out.suffix.lower() not in PAGES:
        raise RunError(f"--out must name a file that ends in one of {', '.join(PAGES)}, got {out}")
    if len(texts) > DRAWN:
        raise RunError(f"a page holds {DRAWN} texts at most, got {len(texts)}: leave some out")
    folder = RunFolder.open(run)
    model, reverse = folder.load_model(), folder.settings.reverse
    title = f"What {run.resolve().name} attends to"
    answers: list[Translation] = []
    if isinstance(model, Translator):
        answers = translate(model, folder.vocabulary, texts, reverse=reverse, beam_size=beam_size)
        page = model_page(model, folder.vocabulary, answers, reverse=reverse, title=title)
    else:
        page = text_page(model.lm, folder.vocabulary, texts, title=title)
    page.save(out)
    for answer in answers:
        print(printable(answer.text))
    print(f"{printable(str(out))}: {len(str(page).encode()) / 1e6:.2f} MB")
