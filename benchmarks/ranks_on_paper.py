"""The efficiency of many ranks, reckoned from what a step and a network do.

    python -m benchmarks.ranks_on_paper [GFLOPS of a rank] [tokens of a rank in a step]

A step is 6 operations for each parameter and token, a third of them forward. A reduction over R ranks moves
``2 (R - 1) / R`` times 4 bytes for each parameter, in ``2 log2(R)`` messages one after the other.
"""

import sys
from math import log2

LATENCY = {10: 30e-6, 100: 10e-6}
"""Seconds of a message over Ethernet of 10 Gbit/s and over a faster network: assumed, not measured."""


def efficiency(rate: float, tokens: float, parameters: float, ranks: int, gbits: int, *, overlapped: bool) -> float:
    """The share of a rank's time in which it computes.

    Parameters
    ----------
    rate : float
        Operations a second.
    tokens, parameters : float
    ranks : int
    gbits : int
        Of the network of each rank.
    overlapped : bool
        Whether gradients travel while backward, two thirds of a step, still runs; all but the last tenth can.
    """
    computing = 6 * parameters * tokens / rate
    moved = 2 * (ranks - 1) / ranks * 4 * parameters / (gbits / 8 * 1e9)
    reducing = moved + 2 * log2(ranks) * LATENCY[gbits]
    if overlapped:
        reducing -= min(0.9 * moved, computing * 2 / 3)
    return computing / (computing + reducing)


def main() -> None:
    rate, tokens = (float(text) for text in (sys.argv[1:] or ["25", "1400"]))
    print(
        "| parameters | ranks | network | one after the other | while backward runs |\n| --- | --- | --- | --- | --- |"
    )
    for parameters in (10**6, 10**8):
        for ranks in (8, 64):
            for gbits in LATENCY:
                plain, overlapped = (
                    efficiency(rate * 1e9, tokens, parameters, ranks, gbits, overlapped=way) for way in (False, True)
                )
                print(f"| {parameters:,} | {ranks} | {gbits} Gbit/s | {plain:.3f} | {overlapped:.3f} |")


if __name__ == "__main__":
    main()
