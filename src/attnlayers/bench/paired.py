"""Contenders against each other in one run: they alternate call by call, so that a noisy machine is noisy to all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

LONG_SECONDS = 0.1
"""Seconds of a call before which the machine rests, instead of being warmed up with calls that are not counted."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a contender's calls, in the order of the rounds.

    Attributes
    ----------
    seconds : NumPy array (rounds,)
    """

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def ratio_to(self, other: Timing) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of this time over the other's, round by round."""
        low, middle, high = np.percentile(self.seconds / other.seconds, [25, 50, 75])
        return float(low), float(middle), float(high)


def paired(
    contenders: Mapping[str, Callable[[int], object]],
    seconds: float,
    *,
    least: int = 5,
    warm: float = 0.04,
    failed: Callable[[str, Exception], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], object] = time.sleep,
) -> dict[str, Timing]:
    """Time contenders in turns, every other round in the opposite order.

    Parameters
    ----------
    contenders : mapping of str to callable
        Called with a running number, by which they choose among several inputs; return when their device is done.
    seconds : float
        For all rounds together.
    least : int
        Rounds that there are in any case.
    warm : float
        Seconds of calls before those that are timed. They wake the contender's own threads and outlast those of
        the contender before, which spin for a while after a call (OpenBLAS' for 2**26 cycles, 26 ms here). Before a
        call longer than `LONG_SECONDS` a pause does: the first millisecond of such a call counts for nothing.
    failed : callable, optional
        Told of a contender that raises, which then is out: the others go on. Without it, the exception ends all.
    clock, rest : callable
        Time in seconds, and a pause of so many.

    Returns
    -------
    dict of str to Timing
        Without the contenders that failed. Of a short call several are timed in a round, and their median counts.
    """
    lengths: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    number = 0

    def leave(name: str, error: Exception) -> None:
        if failed is None:
            raise error
        del times[name]
        failed(name, error)

    def once(name: str, call: Callable[[int], object]) -> float:
        nonlocal number
        if lengths[name] > LONG_SECONDS:
            rest(warm)
        else:
            start = clock()
            while clock() - start < warm:
                number += 1
                call(number)
        some = []
        for _ in range(max(1, min(5, int(0.01 / max(lengths[name], 1e-6))))):
            number += 1
            start = clock()
            call(number)
            some.append(clock() - start)
        return float(np.median(some))

    for name, call in contenders.items():  # the first call compiles, makes threads and touches memory
        try:
            call(0)
            start = clock()
            call(1)
            lengths[name] = clock() - start
        except Exception as error:
            leave(name, error)
    order = list(contenders)
    begin = clock()
    rounds = 0
    while times and (rounds < least or clock() - begin < seconds):
        for name in order if rounds % 2 == 0 else reversed(order):
            if name in times:
                try:
                    times[name].append(once(name, contenders[name]))
                except Exception as error:
                    leave(name, error)
        rounds += 1
    return {name: Timing(np.array(values)) for name, values in times.items()}
