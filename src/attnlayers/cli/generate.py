"""`attnlayers generate`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..writing import Writer


def generate(
    folder: Annotated[
        Path, typer.Argument(help="A run of 'train --architecture lm', or a folder of transformers: GPT-2, Llama, …")
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="What to go on with; lines of standard input if none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to add to each prompt at most.", min=1)] = 64,
    temperature: Annotated[
        float, typer.Option(help="How far from the most probable token; 0 takes it always.", min=0.0)
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many tokens, the most probable ones.", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest tokens that have this probability together.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Write as it is made, one prompt after the other.")
    ] = None,
) -> None:
    """Go on with a text: the prompt and what follows it, a blank line between texts."""
    from attnbackends import keep_freed_memory

    from ..data import DataError

    if top_p is not None and not 0 < top_p <= 1:
        raise DataError(f"--top-p must lie in (0, 1], got {top_p}")
    writer = _writer(folder)
    keep_freed_memory()
    texts = list(prompts) if prompts else _lines()
    if not texts:
        raise DataError("there is nothing to go on with: give a prompt, or lines of standard input")
    streaming = (len(texts) == 1 and sys.stdout.isatty()) if stream is None else stream
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "stop": stop or ()}
    began, tokens = perf_counter(), 0
    groups = [[text] for text in texts] if streaming else [texts]
    try:
        for first, group in enumerate(groups):
            tokens += _write(writer, group, first, streaming, max_tokens, seed, options)
    except KeyboardInterrupt:  # what is written stays
        print()
        raise typer.Exit(130) from None
    seconds = perf_counter() - began
    print(f"{tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s", file=sys.stderr)


def _write(
    writer: Writer, group: list[str], first: int, streaming: bool, max_tokens: int, seed: int, options: dict[str, Any]
) -> int:
    """Write some prompts and what follows them, the first of which is number `first`; how many tokens that took."""
    seeds = [seed + first + place for place in range(len(group))]  # the same with and without --stream
    written = list(group)
    if streaming:
        print("\n" if first else "", group[0], sep="", end="", flush=True)
    for pieces in writer.stream(group, max_tokens, seed=seeds, **options):
        if streaming:
            print(pieces[0], end="", flush=True)
        written = [text + piece for text, piece in zip(written, pieces, strict=True)]
    print("" if streaming else "\n\n".join(written))
    return writer.tokens


def _writer(folder: Path) -> Writer:
    from ..models import CausalLM
    from ..training import RunError, RunFolder
    from ..training.language import TextModel
    from ..writing import Writer

    if not (folder / "vocabulary.json").exists():
        return Writer(CausalLM.from_pretrained(folder))
    run = RunFolder.open(folder)
    model = run.load_model()
    if not isinstance(model, TextModel):
        raise RunError(f"{folder} holds a {run.settings.architecture}, which translates: attnlayers translate {folder}")
    return Writer(model.lm, run.vocabulary)


def _lines() -> list[str]:
    from ..data import DataError

    stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
    try:
        return [line.removesuffix("\n") for line in stream if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8 ({error}): save the text as UTF-8") from None
