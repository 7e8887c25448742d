"""`attnlayers train`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from ..training import Progress, RunFolder, Trainer


def _option(help: str, **range: float) -> Any:
    return typer.Option(help=help, show_default=False, **range)  # type: ignore[arg-type]


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="'dates', or a UTF-8 file of source<TAB>target lines, or one in the book's format [dates]."
        ),
    ] = None,
    model: Annotated[
        str | None, _option("The network: 'seq2seq' (LSTM with attention) or 'transformer' [seq2seq].")
    ] = None,
    attention: Annotated[
        str | None, _option("Scores of seq2seq: 'dot', 'general' (Luong) or 'additive' (Bahdanau) [dot].")
    ] = None,
    epochs: Annotated[int | None, _option("Passes over the data [4]; with --resume: train up to this one.")] = None,
    batch_size: Annotated[int | None, _option("Pairs in a step [128].")] = None,
    wordvec: Annotated[int | None, _option("Size of a token's vector [16; transformer: 128].")] = None,
    hidden: Annotated[int | None, _option("Size of a state, or within feed-forward networks [256].")] = None,
    heads: Annotated[int | None, _option("Attention heads of a transformer [4].")] = None,
    depth: Annotated[int | None, _option("Layers of a transformer's encoder, and of its decoder [2].")] = None,
    lr: Annotated[float | None, _option("Learning rate of Adam [0.001].")] = None,
    warmup: Annotated[int | None, _option("Steps in which the rate rises to --lr [0; transformer: 200].")] = None,
    max_grad_norm: Annotated[float | None, _option("Gradients are scaled down to this norm [5.0].")] = None,
    reverse: Annotated[
        bool | None, typer.Option("--reverse/--no-reverse", help="Read sources backwards [yes].")
    ] = None,
    tokens: Annotated[str | None, _option("What a token is: 'character' or 'word' [character].")] = None,
    seed: Annotated[int | None, _option("Of the data, the split, the order and the initial weights [1984].")] = None,
    out: Annotated[Path | None, _option("The run folder [runs/NAME OF THE DATA].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
) -> None:
    """Train a translator with attention; leaves a run folder with weights, metrics and pictures."""
    # Not at the top: NumPy, a device and pictures have no part in `--help`.
    import matplotlib  # noqa: F401  to miss it now, and not when an epoch is done

    from attnbackends import keep_freed_memory

    from ..training import Trainer

    keep_freed_memory()

    if data not in (None, "dates"):
        data = str(Path(data).resolve())
    given = {
        "epochs": epochs, "batch_size": batch_size, "wordvec": wordvec, "hidden": hidden, "lr": lr,
        "max_grad_norm": max_grad_norm, "reverse": reverse, "unit": tokens, "seed": seed,
        "architecture": model, "attention": attention, "heads": heads, "depth": depth, "warmup": warmup,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if data is not None:
        given["data"] = data
    path = out or Path("runs") / Path(data or "dates").stem
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with _interrupts() as interrupted:
        run = _resume(path, given) if resume else _begin(path, given)
        trainer = Trainer(run)
        if trainer.finished:
            epochs = run.settings.epochs
            console.print(f"{path} has finished its {epochs} epochs: --resume --epochs N goes on to epoch N")
            return
        backend = trainer.backend.describe()
        console.print(
            f"{len(trainer.train):,} pairs to learn from, {len(trainer.test):,} held out, "
            f"{len(run.vocabulary)} tokens, on {backend['library']}, {backend['device']}"
        )
        if interrupted or _watch(trainer, console, interrupted):
            trainer.save()
            console.print(f"stopped and saved; go on with: attnlayers train --resume --out {quote(str(path))}")
            raise typer.Exit(130)
    console.print(f"{path}: weights, metrics.csv, training.png, attention.png")
    example = trainer.test.pairs[0][0]
    console.print(f"try it: attnlayers translate {quote(str(path))} {quote(example)}")


def _begin(path: Path, given: dict[str, Any]) -> RunFolder:
    from ..data import PairDataset, Vocabulary
    from ..training import RunFolder, Settings

    settings = Settings.of(**given)
    pairs = settings.pairs()
    vocabulary = Vocabulary.from_pairs(pairs, settings.unit)
    PairDataset(pairs, vocabulary).split(seed=settings.seed)  # what cannot be split leaves no folder behind
    return RunFolder.create(path, settings, pairs, vocabulary)


def _resume(path: Path, given: dict[str, Any]) -> RunFolder:
    from ..training import RunError, RunFolder

    run = RunFolder.open(path)
    epochs = given.pop("epochs", run.settings.epochs)
    for name, value in given.items():
        of_run = getattr(run.settings, name)
        if value != of_run:
            named = {"unit": "--tokens", "architecture": "--model", "data": "the data"}
            option = named.get(name, f"--{name.replace('_', '-')}")
            raise RunError(
                f"{option} is {of_run} in the run {path}, got {value}: leave it out, or start a run in another --out"
            )
    if epochs != run.settings.epochs:
        run.write_config(replace(run.settings, epochs=epochs))
    return run


def _watch(trainer: Trainer, console: Console, interrupted: list[int]) -> bool:
    """Train with bars on the screen; True if the user stopped it."""
    columns = (
        TextColumn("{task.description:>12}"), BarColumn(bar_width=None), MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, expand=True) as bars:
        task = bars.add_task("", total=None, numbers="")
        shown = ""
        for progress in trainer.steps():
            heading = f"epoch {progress.epoch}/{progress.epochs}"
            if progress.phase == "epoch":
                bars.console.print(f"{heading}  {_numbers(progress)}")
            elif progress.phase == "evaluate":
                heading = "held out"
            if heading != shown:
                bars.reset(task, description=heading, total=progress.total)
                shown = heading
            bars.update(task, completed=progress.done, numbers=_numbers(progress))
            if interrupted:
                return True
        return False


def _numbers(progress: Progress) -> str:
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.accuracy is not None:
        parts.append(f"exact {progress.accuracy:.2%}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C fills the list, so that a step can end; a second one interrupts as usual."""
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
