"""The commands, put together."""

from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .generate import generate
from .info import info
from .train import train
from .translate import translate
from .view import view

app = typer.Typer(
    help="Attention layers on NumPy or CuPy: train, translate, write, measure, look. ATTN_GPU=1 computes on CUDA.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(translate)
app.command()(view)
app.command()(generate)
app.command()(bench)
app.command()(info)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"attnlayers {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """`main` takes ``--debug`` out of the line; it stands here to be found by ``--help``."""
