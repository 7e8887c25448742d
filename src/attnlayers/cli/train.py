"""`attnlayers train`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from ..training import Progress, RunFolder, Trainer


def _in(panel: str) -> Callable[..., Any]:
    """Options of a panel of the help."""

    def option(help: str, *names: str) -> Any:
        return typer.Option(*names, help=escape(help), show_default=False, rich_help_panel=panel)

    return option


_data, _model, _training, _run = map(_in, ("Data", "Model", "Training", "Run"))


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
        data = str(Path(data).resolve())
    if data is not None:
        given["data"] = data
    path = out or Path("runs") / Path(data or "dates").stem
    console = Console(highlight=False, markup=False, soft_wrap=True)
    run = _resume(path, given) if resume else _begin(path, given)
    try:
        _train(run, console)
    except (Exception, KeyboardInterrupt):
        if not resume:
            run.discard()  # unless there is a checkpoint to go on from
        raise


def _train(run: RunFolder, console: Console) -> None:
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
    example = next(filter(None, map(str.strip, trainer.test.lines)))[:20] if text else trainer.test.pairs[0][0]
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
            raise RunError(
                f"{option(name)} is {of_run} in the run {path}, got {value}: leave it out, or start a run in another "
                "--out"
            )
    if moved != run.settings.data:
        run.move_data(moved)
    settings = replace(run.settings, **changed)
    if settings != run.settings:
        run.write_config(settings)
    return run


def _watch(trainer: Trainer, console: Console, interrupted: list[int]) -> bool:
    """Train with bars on the screen; True if the user stopped it."""
    columns = (
        TextColumn("{task.description:>12}"), BarColumn(bar_width=None), MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, expand=True, transient=True, disable=not console.is_terminal) as bars:
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
    if progress.held_out_loss is not None:
        parts.append(f"held out {progress.held_out_loss:.4f}")
    if progress.accuracy is not None:
        parts.append(f"exact {progress.accuracy:.2%}")
    if progress.chrf is not None:
        parts.append(f"chrF {progress.chrf:.1f}")
    if progress.perplexity is not None:
        parts.append(f"perplexity {progress.perplexity:.2f}")
    if progress.phase == "epoch" and progress.best == progress.epoch:
        parts.append("best")
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
