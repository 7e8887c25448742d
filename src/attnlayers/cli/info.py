"""`attnlayers info`."""

import os
import platform

import typer

from .. import __version__
from .._terminal import printable

SETTINGS = ("ATTN_GPU", "ATTN_BACKEND", "ATTN_THREADS")


def info() -> None:
    """Show the backend in use and why, its device, memory, libraries and threads, and the other backends."""
    from ..distributed._join import describe as describe_mpi

    failure: Exception | None = None
    try:
        import attnbackends
    except RuntimeError as error:  # BackendError, which cannot be imported where this happens
        failure = error
        asked = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
        import attnbackends

        os.environ.update(asked)
    rows = [("attnlayers", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")]
    if failure is None:
        rows.append(("backend", f"{attnbackends.backend.name}, because {attnbackends.REASON}"))
        rows += (attnbackends.backend.machine.describe() | attnbackends.backend.machine.trial()).items()
    else:
        rows.append(("backend", f"none: {failure}"))
    rows.append(("MPI", describe_mpi()))
    for name, found in attnbackends.available_backends().items():
        if failure is not None or name != attnbackends.backend.name:
            rows.append((name, ("can be used: " if found.usable else "cannot be used: ") + found.detail))
    width = max(len(heading) for heading, _ in rows)
    for heading, text in rows:
        typer.echo(printable(f"{heading:<{width}}  {text}"))
    if failure is not None:
        raise typer.Exit(1)
