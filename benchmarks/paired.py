"""Contenders against each other in one run: they alternate call by call, so that a noisy machine is noisy to all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


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

    def ratio_to(self, other: "Timing") -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of this time over the other's, round by round."""
        low, middle, high = np.percentile(self.seconds / other.seconds, [25, 50, 75])
        return float(low), float(middle), float(high)


def paired(
    contenders: Mapping[str, Callable[[int], object]],
    rounds: int,
    *,
    synchronize: Callable[[], None] = lambda: None,
    warm: float = 0.04,
) -> dict[str, Timing]:
    """Time contenders in turns, one call of each in a round.

    Parameters
    ----------
    contenders : mapping of str to callable
        Called with a running number, by which they choose among several inputs.
    rounds : int
    synchronize : callable
        Waits for the device; called before the clock is read.
    warm : float
        Seconds of calls before the one that is timed. They wake the contender's own threads and outlast those of
        the contender before, which spin for a while after a call (OpenBLAS' for 2**26 cycles, 26 ms here).

    Returns
    -------
    dict of str to Timing
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    number = 0
    for _ in range(rounds):
        for name, call in contenders.items():
            begin = time.perf_counter()
            start = begin
            while start - begin < warm:
                number += 1
                call(number)
                synchronize()
                start = time.perf_counter()
            call(number + 1)
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(np.array(values)) for name, values in seconds.items()}
