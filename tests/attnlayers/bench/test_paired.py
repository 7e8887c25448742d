"""Timings in turns, with a clock that the contenders move."""

from collections.abc import Callable

import numpy as np
import pytest

from attnlayers.bench.paired import Timing, paired


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.rests: list[float] = []

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.rests.append(seconds)

    def takes(self, name: str, seconds: float) -> Callable[[int], None]:
        def call(i: int) -> None:
            self.calls.append((name, i))
            self.now += seconds

        return call


def test_rounds_fill_the_time_and_have_a_least() -> None:
    clock = Clock()
    contenders = {"a": clock.takes("a", 0.2), "b": clock.takes("b", 0.4)}
    timings = paired(contenders, 10, clock=clock, rest=clock.rest)
    assert len(timings["a"].seconds) == len(timings["b"].seconds) == 15  # of 0.68 seconds, pauses included
    assert len(paired(contenders, 0, clock=clock, rest=clock.rest, least=3)["a"].seconds) == 3
    np.testing.assert_allclose(timings["a"].seconds, 0.2)
    np.testing.assert_allclose(timings["b"].seconds, 0.4)


def test_long_calls_take_turns_after_a_pause() -> None:
    clock = Clock()
    paired({"a": clock.takes("a", 0.2), "b": clock.takes("b", 0.4)}, 0, least=4, clock=clock, rest=clock.rest)
    assert [name for name, _ in clock.calls[4:]] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert clock.rests == [0.04] * 8
    numbers = [i for _, i in clock.calls[4:]]
    assert numbers == sorted(set(numbers))


def test_short_calls_are_warmed_up() -> None:
    clock = Clock()
    paired({"a": clock.takes("a", 0.003), "b": clock.takes("b", 0.02)}, 0, least=1, clock=clock, rest=clock.rest)
    names = [name for name, _ in clock.calls[4:]]
    assert names.count("a") == 14 + 3  # of 0.04 seconds, and three that are timed
    assert names.count("b") in (2 + 1, 3 + 1)
    assert clock.rests == []


def test_ratios_go_round_by_round() -> None:
    slow, fast = Timing(np.array([2.0, 4.0, 9.0])), Timing(np.array([1.0, 2.0, 3.0]))
    assert slow.median == 4
    assert slow.ratio_to(fast) == pytest.approx((2, 2, 2.5))
