"""Dates as people write them, with the ISO date each means: a task to learn attention on."""

from __future__ import annotations

from datetime import date

import numpy as np

__all__ = ["generate_dates"]

FIRST, LAST = date(1970, 1, 1), date(2017, 7, 24)

# Own names: those of `strftime` follow the locale of the process.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_STYLES = 4
_CASES = (str, str, str.lower, str.upper)


def generate_dates(count: int = 50_000, seed: int = 1984) -> list[tuple[str, str]]:
    """Draw `count` pairs of a date as people write it and the same date as ``YYYY-MM-DD``.

    Days are uniform over 1970-01-01 to 2017-07-24, the four styles equally likely: ``2/10/93``,
    ``Feb 10, 1993``, ``February 10, 1993`` and ``Wednesday, February 10, 1993``. Half of the dates
    with names keep these capitals, a quarter is in lower and a quarter in upper case. Pairs may
    repeat.

    Parameters
    ----------
    count : int
        How many pairs.
    seed : int
        Same seed, same pairs; whatever the locale.

    Returns
    -------
    pairs : list of (source, target)

    Raises
    ------
    ValueError
        Where `count` or `seed` is negative.

    References
    ----------
    The task of "Deep Learning from Scratch 2", section 8.2.
    """
    for name, value in (("count", count), ("seed", seed)):
        if value < 0:
            raise ValueError(f"`{name}` must be 0 or more, got {value}")
    rng = np.random.default_rng(seed)
    ordinals = rng.integers(FIRST.toordinal(), LAST.toordinal(), size=count, endpoint=True).tolist()
    styles = rng.integers(_STYLES, size=count).tolist()
    cases = rng.integers(len(_CASES), size=count).tolist()
    days = map(date.fromordinal, ordinals)
    return [
        (_CASES[case](_write(day, style)), day.isoformat())
        for day, style, case in zip(days, styles, cases, strict=True)
    ]


def _write(day: date, style: int) -> str:
    if style == 0:
        return f"{day.month}/{day.day}/{day.year % 100:02d}"
    month = _MONTHS[day.month - 1]
    if style == 1:
        month = month[:3]
    written = f"{month} {day.day}, {day.year}"
    return written if style < 3 else f"{_WEEKDAYS[day.weekday()]}, {written}"
