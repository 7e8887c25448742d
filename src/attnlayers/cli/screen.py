"""What the commands show: consoles, bars, and a line now and then where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import ProgressColumn, TextColumn
from rich.table import Column

from .._terminal import printable

EVERY = 60.0
"""Seconds from one line to the next where there is no terminal: a log of a night stays readable."""


class Screen(Console):
    """A console that shows text as it is, without control characters of others; markup is for tables."""

    def __init__(self, *, width: int | None = None, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(highlight=False, soft_wrap=True, width=width, stderr=stderr, quiet=quiet)

    def print(self, *objects: Any, **options: Any) -> None:
        if all(isinstance(one, str) for one in objects):
            objects, options = tuple(map(printable, objects)), {"markup": False} | options
        super().print(*objects, **options)


class NowAndThen:
    """A line a minute, for logs."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show, self._last = show, monotonic()

    def __call__(self, line: str) -> None:
        """Show the line if a minute has passed since the last one."""
        now = monotonic()
        if now - self._last >= EVERY:
            self._last = now
            self._show(line)


def text_column(text: str) -> ProgressColumn:
    """A column of a bar that is cut rather than wrapped: of a bar on two lines one would stay behind."""
    return TextColumn(text, table_column=Column(no_wrap=True, overflow="ellipsis"), markup=False)


def described(panel: str | None = None) -> Callable[..., Any]:
    """Options of a panel of the help, whose texts say their defaults in square brackets."""

    def option(help: str, *names: str, **options: Any) -> Any:
        return typer.Option(*names, help=escape(help), show_default=False, rich_help_panel=panel, **options)

    return option
