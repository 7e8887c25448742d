"""Generated dates: their form, their meaning and their shares."""

import re
from collections import Counter
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlayers.data import generate_dates

PAIRS = generate_dates()

STYLES = {
    "%m/%d/%y": r"\d+/\d+/\d\d",
    "%b %d, %Y": r"[A-Za-z]{3} \d+, \d{4}",
    "%B %d, %Y": r"[A-Za-z]+ \d+, \d{4}",
    "%A, %B %d, %Y": r"[A-Za-z]+, [A-Za-z]+ \d+, \d{4}",
}


def style_of(source: str) -> str:
    """The style of `source`; "May", which is short for itself, counts as short."""
    return next(style for style, pattern in STYLES.items() if re.fullmatch(pattern, source))


def test_every_date_means_its_target() -> None:
    for source, target in PAIRS:
        assert datetime.strptime(source, style_of(source)).strftime("%Y-%m-%d") == target
        assert date(1970, 1, 1) <= date.fromisoformat(target) <= date(2017, 7, 24)


def test_weekdays_are_those_of_the_dates() -> None:
    written = [(source.split(", ")[0], target) for source, target in PAIRS if source.count(",") == 2]
    assert all(day.lower() == f"{date.fromisoformat(target):%A}".lower() for day, target in written)


def test_days_and_months_are_not_padded() -> None:
    assert not any(re.search(r"(^|[/ ])0\d[/,]", source) for source, _ in PAIRS)


def test_styles_are_about_a_quarter_each() -> None:
    counts = Counter(style_of(source) for source, target in PAIRS if "-05-" not in target)
    for count in counts.values():
        assert count / counts.total() == pytest.approx(1 / 4, abs=0.01)
    assert counts.keys() == STYLES.keys()


def test_half_keep_their_capitals() -> None:
    written = [source for source, _ in PAIRS if "/" not in source]
    lower, upper = sum(map(str.islower, written)), sum(map(str.isupper, written))
    titled = sum(map(str.istitle, written))
    assert lower / len(written) == pytest.approx(1 / 4, abs=0.01)
    assert upper / len(written) == pytest.approx(1 / 4, abs=0.01)
    assert lower + upper + titled == len(written)


def test_days_are_uniform() -> None:
    ordinals = [date.fromisoformat(target).toordinal() for _, target in PAIRS]
    first, last = date(1970, 1, 1).toordinal(), date(2017, 7, 24).toordinal()
    tenths = Counter(10 * (ordinal - first) // (last - first + 1) for ordinal in ordinals)
    assert len(tenths) == 10
    assert all(count / len(PAIRS) == pytest.approx(1 / 10, abs=0.01) for count in tenths.values())


def test_first_pairs_of_the_default_seed_stay() -> None:
    assert PAIRS[:4] == [
        ("Oct 13, 1981", "1981-10-13"),
        ("MAY 24, 1979", "1979-05-24"),
        ("apr 23, 2006", "2006-04-23"),
        ("sunday, june 7, 1970", "1970-06-07"),
    ]


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 2**64))
def test_decided_by_the_seed(count: int, seed: int) -> None:
    pairs = generate_dates(count, seed)
    assert len(pairs) == count
    assert pairs == generate_dates(count, seed)


def test_other_seed_other_dates() -> None:
    assert generate_dates(20, seed=1) != generate_dates(20, seed=2)


@pytest.mark.parametrize(("count", "seed", "name"), [(-1, 0, "count"), (5, -1, "seed")])
def test_negative_arguments(count: int, seed: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^`{name}` must be 0 or more, got -1$"):
        generate_dates(count, seed)
