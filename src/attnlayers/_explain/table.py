"""A table of what a layer computes: names, formulas, shapes and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from math import prod

import numpy as np

SHOWN = 60
"""Numbers that a row shows at most: about ten lines of a terminal."""

COMPUTED = 1_000_000
"""Elements of the largest intermediate up to which numbers are computed: 8 MB of float64 and some milliseconds each."""


@dataclass(frozen=True)
class Row:
    """One intermediate.

    Attributes
    ----------
    name, formula : str
    shape : tuple of int
    """

    name: str
    formula: str
    shape: tuple[int, ...]


class Explanation:
    """The intermediates of a layer in the order in which they are computed; text in a terminal, a table in a notebook.

    ``explanation["a"]`` is one of them as a float64 array; iterating gives the rows.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.rows: list[Row] = []
        self._functions: dict[str, Callable[[], np.ndarray]] = {}
        self._values: dict[str, np.ndarray] = {}

    def add(self, name: str, formula: str, shape: tuple[int, ...], function: Callable[[], np.ndarray] | None) -> None:
        """A row; `function` computes it, None says that its numbers were not kept."""
        self.rows.append(Row(name, formula, shape))
        if function is not None:
            self._functions[name] = function

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            if name not in self._functions:
                known = ", ".join(row.name for row in self.rows)
                what = "its numbers were not kept" if name in known.split(", ") else f"there are {known}"
                raise KeyError(f"{name}: {what}")
            self._values[name] = self._functions[name]()
        return self._values[name]

    def _numbers(self, row: Row) -> str:
        """The numbers of a row, nothing where they are many."""
        largest = max(prod(other.shape) for other in self.rows)
        if row.name not in self._functions or prod(row.shape) > SHOWN or largest > COMPUTED:
            return ""
        return np.array2string(self[row.name], precision=4, suppress_small=True, max_line_width=88)

    def __str__(self) -> str:
        widths = [max(len(text) for text in column) for column in zip(*map(_texts, self.rows), strict=True)]
        lines = [self.title]
        for row in self.rows:
            lines.append("  ".join(text.ljust(width) for text, width in zip(_texts(row), widths, strict=True)).rstrip())
            lines += [f"    {line}" for line in self._numbers(row).splitlines()]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join(
            "<tr>"
            + "".join(f'<td style="text-align: left"><code>{escape(text)}</code></td>' for text in _texts(row))
            + f'<td style="text-align: left"><pre style="margin: 0">{escape(self._numbers(row))}</pre></td></tr>'
            for row in self.rows
        )
        head = "".join(f'<th scope="col" style="text-align: left">{name}</th>' for name in _COLUMNS)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table><caption>{escape(self.title)}</caption><tr>{head}</tr>{body}</table>{note}"


_COLUMNS = ("name", "formula", "shape", "numbers")


def _texts(row: Row) -> tuple[str, str, str]:
    return row.name, row.formula, str(row.shape)
