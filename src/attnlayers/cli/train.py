"""`attnlayers train`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from .screen import NowAndThen, Screen, described, text_column

if TYPE_CHECKING:
    from ..distributed import Ranks
    from ..training import Progress, RunFolder, Trainer
    from ._runs import Interrupts


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
    from ..distributed import join
    from . import report

    with join(report) as ranks:
        stopped = _train(ranks, given, out, moved, resume=resume)
    if stopped:
        raise typer.Exit(130)


def _train(ranks: Ranks, given: dict[str, Any], out: Path | None, moved: str | None, *, resume: bool) -> bool:
    """Train; whether it was stopped before its end."""
    import matplotlib  # noqa: F401  to miss it now, and not when an epoch is done

    from attnbackends import keep_freed_memory

    from ..training import RunError
    from ._runs import interrupts, open_run

    keep_freed_memory()
    if moved is not None:
        if not resume or "data" in given:
            raise RunError("--data tells where the data of a run are now: give it with --resume and without other data")
        given["data"] = moved
    data = given.get("data", "dates")
    if data != "dates":
        if get_close_matches(data, ["dates"]) and not Path(data).exists():
            raise RunError(f"{data} does not exist: did you mean dates, as in `attnlayers train dates`?")
        given["data"] = str(Path(data).resolve())
    path = out or Path("runs") / Path(data).stem
    console = Screen(quiet=not ranks.first)
    with interrupts(ranks, lambda: ranks.end(KeyboardInterrupt())) as interrupted:
        run = open_run(ranks, path, given, resume=resume)
        try:
            return _train_run(ranks, run, console, interrupted)
        except BaseException:
            if ranks.first and not resume:
                run.discard()  # unless there is a checkpoint to go on from
            raise


def _train_run(ranks: Ranks, run: RunFolder, console: Screen, interrupted: Interrupts) -> bool:
    from ..training import Trainer

    text = run.settings.architecture == "lm"
    if run.settings.free_text and not text:
        import sacrebleu  # noqa: F401  to miss it now, and not when an epoch is done
    path, settings = run.path, run.settings
    interrupted.stop = lambda: None  # from here on there is something to save
    trainer = ranks.together(lambda: Trainer(run, ranks=ranks))
    if trainer.finished:
        console.print(_ending(trainer))
        return False
    backend = trainer.backend.machine.describe()
    hosts = len(set(ranks.gather(ranks.host)))
    console.print(
        f"{len(trainer.train):,} {'windows' if text else 'pairs'} to learn from, {len(trainer.test):,} held out, "
        f"{len(run.vocabulary)} tokens, on {backend['library']}, {backend['device']}"
        + (f", by {ranks.size} ranks on {hosts} host{'s' * (hosts > 1)} over {ranks.sums}" if ranks.size > 1 else "")
    )
    if trainer.left_out:
        console.print(f"{trainer.left_out:,} pairs have more than {settings.max_length} tokens and are left out")
    interrupted.stop = trainer.stop
    if interrupted.came is not None:
        trainer.stop()
    _watch(trainer, console)
    if trainer.stopped:
        console.print(f"stopped and saved; go on with: attnlayers train --resume --out {quote(str(path))}")
        return True
    if trainer.exhausted:
        console.print(_ending(trainer))
    console.print(f"{path}: weights of epoch {trainer.best}, metrics.csv, training.png, attention.png")
    command = "generate" if text else "translate"
    sources = (line.strip()[:20] for line in trainer.test.lines) if text else (pair[0] for pair in trainer.test.pairs)
    example = next((source for source in sources if source and source.isprintable()), None)
    if example is not None:
        console.print(f"try it: attnlayers {command} {quote(str(path))} {quote(example)}")
    return False


def _ending(trainer: Trainer) -> str:
    path, settings = trainer.run.path, trainer.run.settings
    if trainer.exhausted:
        return (
            f"{path} has stopped after epoch {trainer.epoch}: the held-out loss was lowest in epoch {trainer.best}; "
            f"--resume --patience N, with N larger than {settings.patience}, goes on"
        )
    return f"{path} has finished its {settings.epochs} epochs: --resume --epochs N goes on to epoch N"


def _watch(trainer: Trainer, console: Screen) -> None:
    """Train with bars on the screen, or a line a minute without one."""
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
