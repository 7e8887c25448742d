"""What is to be reached, as the most that ours may take of a peer's time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cases import TRAINING

if TYPE_CHECKING:
    from .outcome import Row

MEMORY_MB = 200.0
"""What forward and backward may add to the peak of memory in a case that measures it."""

LONG_T = 1024
"""T from which half precision is measured."""


def most(case: str, direction: str, peer: str, backend: str, dtype: str) -> float | None:
    """The largest ratio, ours over the peer's, that counts as reached; None where there is no target.

    The fastest of PyTorch's kernels counts.
    """
    if case.startswith("T=") or direction == "backward":
        return None
    if case == TRAINING:
        return 1.0
    if backend == "numpy":
        if peer == "loops":
            return 1 / 25 if direction == "both" else None
        if peer == "jax":
            return 0.5
        if peer != "torch":
            return None
        if direction == "forward":
            return 1.0
        return 0.6 if case in ("book", "short") else 0.9
    if peer != "torch" or (direction == "forward" and case != "decode"):
        return None
    return 0.7 if case == "book" and dtype == "float32" else 1.0


def verdicts(rows: Sequence[Row]) -> list[tuple[Row, float, bool]]:
    """The rows of one case and direction that have a target, with it and whether it is met."""
    found = []
    for peer in dict.fromkeys(row.peer for row in rows):
        best = max((row for row in rows if row.peer == peer), key=lambda row: row.ratio)
        target = most(best.case, best.direction, peer, best.backend, best.dtype)
        if target is not None:
            exact = best.errors is None or best.errors[0] <= 2 * best.errors[1]
            found.append((best, target, best.ratio <= target and exact))
    return found
