"""What a duel leaves: rows, and what is missing of it and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .contenders import LeftOutError
from .paired import Timing
from .processes import Failure


@dataclass(frozen=True)
class Row:
    """One contender against ours, in one direction of one case.

    Attributes
    ----------
    case, backend, dtype, peer, contender, direction : str
        `contender` is the peer's name on the screen; a peer may have several, PyTorch's kernels.
    ours, theirs : list of float
        Seconds, round by round.
    ratio : float
        Median over the rounds of ours over theirs.
    quartiles : (float, float)
        Quartiles of those ratios.
    difference : float
        Largest between the two results, over the largest number.
    errors : (float, float), optional
        Ours and theirs against float64.
    products : list of float, optional
        Seconds of the matrix products alone, in the same rounds.
    floor : float, optional
        Median over the rounds of the products' time over theirs: no ratio made of the same products lies below.
    work : (int, int), optional
        Operations of the products, and bytes of inputs and outputs, counted, where there is a target and `products`
        were not measured: on a device.
    precision : str, optional
        What the contender multiplies in, where that is not the dtype: a library may round float32 to TF32 on a device.
    """

    case: str
    backend: str
    dtype: str
    peer: str
    contender: str
    direction: str
    ours: list[float]
    theirs: list[float]
    ratio: float
    quartiles: tuple[float, float]
    difference: float
    errors: tuple[float, float] | None = None
    products: list[float] | None = None
    floor: float | None = None
    work: tuple[int, int] | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What one process found.

    Attributes
    ----------
    rows : list of Row
    left_out, wrong : dict of str to str
        By contender: why it cannot take part, and how its results are off.
    failed : dict of str to Failure
        By contender: the exception that put it out.
    refused : dict of str to str
        What a backend's own ways refused, as `Machine.refusals` tells.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def watching(self, contender: str, stage: str) -> Iterator[None]:
        """Around what a contender does: an exception is noted, and goes no further."""
        try:
            yield
        except LeftOutError as reason:
            self.left_out[contender] = str(reason)
        except Exception as error:
            self.failed[contender] = Failure.of(stage, error)


def row(
    case: str,
    backend: str,
    dtype: str,
    peer: str,
    contender: str,
    direction: str,
    ours: Timing,
    theirs: Timing,
    difference: float,
    errors: tuple[float, float] | None = None,
    products: Timing | None = None,
    precision: str | None = None,
) -> Row:
    """A row from two timings of the same rounds, or three."""
    low, middle, high = ours.ratio_to(theirs)
    place = (case, backend, dtype, peer, contender, direction)
    seconds = ours.seconds.tolist(), theirs.seconds.tolist()
    found = Row(*place, *seconds, middle, (low, high), difference, errors, precision=precision)
    if products is None:
        return found
    return replace(found, products=products.seconds.tolist(), floor=products.ratio_to(theirs)[1])
