"""The commands, put together."""

from typing import Annotated

import typer

from .bench import bench
from .generate import generate
from .info import info
from .train import train
from .translate import translate

app = typer.Typer(
    help="Attention layers on NumPy or CuPy: train, translate, write, measure, look. ATTN_GPU=1 computes on CUDA.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(translate)
app.command()(generate)
app.command()(bench)
app.command()(info)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the line.")
    ] = False,
) -> None:
    """`main` takes ``--debug`` out of the line; it stands here to be found by ``--help``."""
