"""`attnlayers info`."""

import os
import platform

import typer
from rich.console import Console
from rich.table import Table

from .. import __version__


def info() -> None:
    """Show the backend in use and why, its device, memory, libraries and threads, and the other backends."""
    console = Console(soft_wrap=True, highlight=False)
    failure: Exception | None = None
    try:
        import attnbackends
    except RuntimeError as error:  # BackendError, which cannot be imported where this happens
        failure = error
        asked = {name: os.environ.pop(name) for name in ("ATTN_GPU", "ATTN_BACKEND") if name in os.environ}
        import attnbackends

        os.environ.update(asked)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("attnlayers", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    if failure is None:
        table.add_row("backend", f"{attnbackends.backend.name}, because {attnbackends.REASON}")
        for heading, text in attnbackends.backend.describe().items():
            table.add_row(heading, text)
    else:
        table.add_row("backend", f"none: {failure}")
    for name, found in attnbackends.available_backends().items():
        if failure is not None or name != attnbackends.backend.name:
            table.add_row(name, ("can be used: " if found.usable else "cannot be used: ") + found.detail)
    console.print(table)
    if failure is not None:
        raise typer.Exit(1)
