"""`attnlayers train`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from .screen import NowAndThen, Screen, described, text_column

if TYPE_CHECKING:
    from ..training import Progress, RunFolder, Trainer


_data, _model, _training, _run = map(described, ("Data", "Model", "Training", "Run"))


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help=escape("'dates', or a UTF-8 file of source<TAB>target lines, or one in the book's format [dates].")
        ),
    ] = None,
    columns: Annotated[str | None, _data("Columns of source and target in a file that has more, as in '1,2'.")] = None,
    unit: Annotated[
        str | None, _data("What a token is: 'character', 'word', or 'subword' (byte-pair encoding) [character].")
    ] = None,
    vocab_size: Annotated[int | None, _data("Subwords at most [8000].")] = None,
    min_count: Annotated[
        int | None, _data("Words or characters that occur less often become <unk> [words: 2, characters: 1].")
    ] = None,
    normalize: Annotated[str | None, _data("Normal form of Unicode: 'NFC', 'NFKC' or 'none' [NFC].")] = None,
    max_length: Annotated[int | None, _data("Leave out pairs with a text of more tokens [0: leave out none].")] = None,
    split: Annotated[
        str | None, _data("Hold out all pairs of a 'source', or single pairs as the 'book' does [source].")
    ] = None,
    reverse: Annotated[bool | None, _data("Read sources backwards [yes].", "--reverse/--no-reverse")] = None,
    architecture: Annotated[
        str | None,
        _model("The network: 'seq2seq' (LSTM with attention), 'transformer', or 'lm' for plain text [seq2seq]."),
    ] = None,
    embedding_size: Annotated[int | None, _model("Size of a token's vector [16; transformer, lm: 128].")] = None,
    hidden_size: Annotated[int | None, _model("Size of a state, or within feed-forward networks [256].")] = None,
    attention: Annotated[
        str | None, _model("Scores of seq2seq: 'dot', 'general' (Luong) or 'additive' (Bahdanau) [dot].")
    ] = None,
    heads: Annotated[int | None, _model("Attention heads of a transformer or lm [4].")] = None,
    depth: Annotated[int | None, _model("Layers of an lm, or of a transformer's encoder and decoder [2].")] = None,
    context: Annotated[int | None, _model("Tokens before it that a language model sees [128].")] = None,
    dropout: Annotated[float | None, _model("Share of values that is set to 0 in training [0].")] = None,
    epochs: Annotated[int | None, _training("Passes over the data [4]; with --resume: train up to this one.")] = None,
    batch_size: Annotated[int | None, _training("Pairs in a step at most [128; lm: 32 windows].")] = None,
    lr: Annotated[float | None, _training("Learning rate of Adam [0.001].")] = None,
    warmup: Annotated[int | None, _training("Steps in which the rate rises to --lr [0; transformer, lm: 200].")] = None,
    schedule: Annotated[
        str | None, _training("Then the rate stays 'constant', or falls as 'cosine' to 0 at the end [constant].")
    ] = None,
    weight_decay: Annotated[float | None, _training("Share that AdamW takes off weights, times the rate [0].")] = None,
    label_smoothing: Annotated[
        float | None, _training("Share of the wanted probability that is spread over all tokens [0].")
    ] = None,
    max_grad_norm: Annotated[float | None, _training("Gradients are scaled down to this norm [5.0].")] = None,
    patience: Annotated[
        int | None, _training("Stop after so many epochs without a lower held-out loss [0: never].")
    ] = None,
    seed: Annotated[int | None, _training("Of all that is drawn [1984].")] = None,
    out: Annotated[Path | None, _run("The run folder [runs/NAME OF THE DATA].")] = None,
    resume: Annotated[bool, _run("Go on with the run in the folder.", "--resume")] = False,
    moved: Annotated[str | None, _run("With --resume: where the data of the run are now.", "--data")] = None,
) -> None:
    """Train a translator or a language model; leaves a run folder with weights, metrics and pictures."""
    # Every other option is a setting, under its name.
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("out", "resume", "moved"):
        given.pop(name, None)
    # Not at the top: NumPy, a device and pictures have no part in `--help`.
    import matplotlib  # noqa: F401  to miss it now, and not when an epoch is done

    from attnbackends import keep_freed_memory

    from ..training import RunError

    keep_freed_memory()

    if moved is not None:
        if not resume or data is not None:
            raise RunError("--data tells where the data of a run are now: give it with --resume and without other data")
        data = moved
    if data not in (None, "dates"):
        if get_close_matches(data, ["dates"]) and not Path(data).exists():
            raise RunError(f"{data} does not exist: did you mean dates, as in `attnlayers train dates`?")
        data = str(Path(data).resolve())
    if data is not None:
        given["data"] = data
    path = out or Path("runs") / Path(data or "dates").stem
    console = Screen()
    run = _resume(path, given) if resume else _begin(path, given)
    try:
        _train(run, console)
    except (Exception, KeyboardInterrupt):
        if not resume:
            run.discard()  # unless there is a checkpoint to go on from
        raise


def _train(run: RunFolder, console: Screen) -> None:
    from ..training import Trainer

    text = run.settings.architecture == "lm"
    if run.settings.free_text and not text:
        import sacrebleu  # noqa: F401  to miss it now, and not when an epoch is done
    path, settings = run.path, run.settings
    with _interrupts() as interrupted:
        trainer = Trainer(run)
        if trainer.finished:
            console.print(_ending(trainer))
            return
        backend = trainer.backend.describe()
        console.print(
            f"{len(trainer.train):,} {'windows' if text else 'pairs'} to learn from, {len(trainer.test):,} held out, "
            f"{len(run.vocabulary)} tokens, on {backend['library']}, {backend['device']}"
        )
        if trainer.left_out:
            console.print(f"{trainer.left_out:,} pairs have more than {settings.max_length} tokens and are left out")
        if interrupted or _watch(trainer, console, interrupted):
            trainer.save()
            console.print(f"stopped and saved; go on with: attnlayers train --resume --out {quote(str(path))}")
            raise typer.Exit(130)
    if trainer.exhausted:
        console.print(_ending(trainer))
    console.print(f"{path}: weights of epoch {trainer.best}, metrics.csv, training.png, attention.png")
    held_out = map(str.strip, trainer.test.lines) if text else (source for source, _ in trainer.test.pairs)
    examples = [source for source in held_out if source and source.isprintable()]
    if examples:
        example = examples[0][:20] if text else examples[0]
        console.print(f"try it: attnlayers {'generate' if text else 'translate'} {quote(str(path))} {quote(example)}")


def _ending(trainer: Trainer) -> str:
    path, settings = trainer.run.path, trainer.run.settings
    if trainer.exhausted:
        return (
            f"{path} has stopped after epoch {trainer.epoch}: the held-out loss was lowest in epoch {trainer.best}; "
            f"--resume --patience N, with N larger than {settings.patience}, goes on"
        )
    return f"{path} has finished its {settings.epochs} epochs: --resume --epochs N goes on to epoch N"


def _begin(path: Path, given: dict[str, Any]) -> RunFolder:
    from ..training import RunFolder, Settings

    settings = Settings.of(**given)
    RunFolder.check_free(path)  # before minutes of reading
    pairs = settings.pairs()
    return RunFolder.create(path, settings, pairs, settings.vocabulary(pairs))


def _resume(path: Path, given: dict[str, Any]) -> RunFolder:
    from ..training import RunError, RunFolder
    from ..training.settings import option

    run = RunFolder.open(path)
    run.settings.check_given(given)
    changed = {name: given.pop(name) for name in ("epochs", "patience") if name in given}
    moved = given.pop("data", run.settings.data)
    for name, value in given.items():
        of_run = getattr(run.settings, name)
        if value != of_run:
            is_, got = f"{option(name)} is {of_run}", str(value)
            if isinstance(value, bool):
                on, off = option(name), option(f"no_{name}")
                is_, got = ("it is " + (on if of_run else off)), on if value else off
            raise RunError(f"{is_} in the run {path}, got {got}: leave it out, or start a run in another --out")
    if moved != run.settings.data:
        run.move_data(moved)
    settings = replace(run.settings, **changed)
    if settings != run.settings:
        run.write_config(settings)
    return run


def _watch(trainer: Trainer, console: Screen, interrupted: list[int]) -> bool:
    """Train with bars on the screen, or a line a minute without one; True if the user stopped it."""
    columns = (
        text_column("{task.description:>12}"), BarColumn(bar_width=None), MofNCompleteColumn(),
        text_column("{task.fields[numbers]}"), TimeElapsedColumn(),
    )  # fmt: skip
    now_and_then = NowAndThen(console.print)
    with Bars(*columns, console=console, expand=True, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None, numbers="")
        shown = ""
        for progress in trainer.steps():
            width = console.width if console.is_terminal else None
            heading = f"epoch {progress.epoch}/{progress.epochs}"
            if progress.phase == "epoch":
                bars.console.print(_line(f"{heading}  ", progress, width))
            elif progress.phase == "evaluate":
                heading = "held out"
            if heading != shown:
                bars.reset(task, description=heading, total=progress.total)
                shown = heading
            counted = f"{progress.done}/{progress.total}"
            beside = 12 + BAR + len(counted) + len("0:00:00") + 4  # and a space between two columns
            bars.update(task, completed=progress.done, numbers=_line("", progress, width and width - beside))
            if not console.is_terminal and progress.phase != "epoch":
                now_and_then(_line(f"{heading}  {counted}  ", progress, None))
            if interrupted:
                return True
        return False


BAR = 8
"""Columns of a bar at least."""


def _line(start: str, progress: Progress, width: int | None) -> str:
    """What there is to tell, as far as it fits: what matters least is left out first."""
    parts = _numbers(progress)
    order = ("best", "loss", "left", "held out", "exact", "chrF", "perplexity", "tokens/s")
    kept = [name for name in order if name in parts]
    while kept:
        line = start + "  ".join(text for name, text in parts.items() if name in kept)
        if width is None or len(line) <= width:
            return line
        kept.pop()
    return start.rstrip()


def _numbers(progress: Progress) -> dict[str, str]:
    parts = {}
    if progress.loss is not None:
        parts["loss"] = f"loss {progress.loss:.4f}"
    if progress.held_out_loss is not None:
        parts["held out"] = f"held out {progress.held_out_loss:.4f}"
    if progress.accuracy is not None:
        parts["exact"] = f"exact {progress.accuracy:.2%}"
    if progress.chrf is not None:
        parts["chrF"] = f"chrF {progress.chrf:.1f}"
    if progress.perplexity is not None:
        parts["perplexity"] = f"perplexity {progress.perplexity:.2f}"
    if progress.phase == "epoch" and progress.best == progress.epoch:
        parts["best"] = "best"
    if progress.tokens_per_second is not None:
        parts["tokens/s"] = f"{progress.tokens_per_second:,.0f} tokens/s"
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts["left"] = f"{minutes}:{seconds:02d} left"
    return parts


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
