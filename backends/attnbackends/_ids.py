"""Ids that index a table: what is said of one that does not."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """What an error says beside the id."""

    name: str
    size: int
    advice: str
    ignore: int | None


def outside(check: Check, found: int) -> IndexError:
    """The one error for an id that is none."""
    also = "" if check.ignore is None else f", or be {check.ignore} where they do not count"
    return IndexError(f"`{check.name}` must lie in 0 .. {check.size - 1}{also}, got {found}: {check.advice}")
