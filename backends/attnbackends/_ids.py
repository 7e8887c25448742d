"""Ids that index a table: what is said of one that does not."""

from __future__ import annotations

from typing import Any, NamedTuple


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


def check_ids(xp: Any, ids: Any, size: int, name: str, advice: str, ignore: int | None = None) -> None:
    """Raise the error for an id that is none of 0 .. size - 1; it looks at the ids, which a device is waited for.

    Parameters
    ----------
    xp : module
    ids : integer array
    size : int
    name, advice : str
        For the error: what the caller calls the ids, and what to do.
    ignore : int, optional
        For the error: the id that the caller has taken out.
    """
    if 0 not in ids.shape:
        lowest, highest = int(xp.min(ids)), int(xp.max(ids))
        if lowest < 0 or highest >= size:
            raise outside(Check(name, size, advice, ignore), lowest if lowest < 0 else highest)
