"""One peer against this library on one case, in a process of its own, for its threads and its memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np

from attnbackends import get_backend, keep_freed_memory

from .cases import Case
from .contenders import Contender, LeftOutError, Ours
from .paired import Timing, paired
from .peers import PEERS
from .products import PRODUCTS, Products
from .targets import most

OURS = "attnlayers"
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
"""Largest difference between two contenders' results, over the largest of the numbers."""

ROOM_FOR_PRODUCTS = 1.5
"""Of the seconds for two contenders: what three need for as many rounds."""

EXACT_BYTES = 2**28
"""Of float64 weights of one entry, up to which the error of half precision is measured against float64."""

T = TypeVar("T")


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
        Of the same.
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


@dataclass(frozen=True)
class Outcome:
    """What one process found: rows, and reasons by contender why something is missing or wrong."""

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def in_process(
    function: Callable[..., T], *arguments: Any, initializer: Callable[[], object] | None = keep_freed_memory
) -> T:
    """Call a function in a fresh process, after `initializer`, and wait for what it returns.

    By default no contender there pays for memory that the one before gave back: which of them did depended on what was
    allocated earlier, and was up to ten times the computation (benchmarks/NOTES.md).

    Raises
    ------
    RuntimeError
        If the process ends without an answer.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=initializer) as process:
        try:
            return process.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError("its process ended without an answer: out of memory?") from error


def duel(case: Case, backend_name: str, dtype: str, peer: str, seconds: float) -> Outcome:
    """Ours against all contenders of a peer.

    Parameters
    ----------
    case : Case
    backend_name : str
    dtype : str
    peer : str
        One of `PEERS`.
    seconds : float
        For the rounds of all directions together; half as much again where the products alone take part: where there
        is a target that may be missed, on a CPU.

    Returns
    -------
    Outcome
        A contender whose results are off is not timed.
    """
    outcome = Outcome()
    backend = get_backend(backend_name)
    sets = case.draw()
    try:
        found = PEERS[peer](case, sets, backend, dtype)
        ours = Ours(case, sets, backend, dtype)
        expected = ours.results()
    except LeftOutError as reason:
        outcome.left_out[peer] = str(reason)
        return outcome
    contenders: dict[str, Contender] = {OURS: ours}
    differences: dict[str, float] = {}
    errors: dict[str, tuple[float, float]] = {}
    exact = exact_results(case, sets[0]) if dtype != "float32" else None
    for name, contender in found.items():
        if isinstance(contender, str):
            outcome.left_out[name] = contender
            continue
        try:
            results = contender.results()
        except Exception as error:  # a kernel that refuses a dtype or a shape says so in many ways
            outcome.left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        difference = largest_difference(expected, results)
        if not difference <= TOLERANCE[dtype]:
            outcome.wrong[name] = f"results differ by {difference:.1e} of the largest, {TOLERANCE[dtype]:.0e} allowed"
            continue
        contenders[name], differences[name] = contender, difference
        if exact is not None:
            errors[name] = (
                largest_difference(exact, [x[:1] for x in expected]),
                largest_difference(exact, [x[:1] for x in results]),
            )
    if len(contenders) == 1:
        return outcome
    has_target = _has_target(case, backend_name, peer)
    with_products = has_target and backend.on_host and dtype == "float32"
    if with_products:
        contenders[PRODUCTS] = Products(case, sets, backend)
        seconds *= ROOM_FOR_PRODUCTS
    for direction in case.directions:
        for contender in contenders.values():
            if direction == "backward":
                contender.keep()
            else:
                contender.kept = []
        calls = {name: getattr(contender, direction) for name, contender in contenders.items()}
        timings = paired(calls, seconds / len(case.directions))
        counted = has_target and not with_products
        work = case.work(direction, 4 if dtype == "float32" else 2) if counted else None
        for name in differences:
            place = (case.name, backend_name, dtype, peer, name, direction)
            of_both = timings[OURS], timings[name], differences[name], errors.get(name)
            outcome.rows.append(replace(row(*place, *of_both, timings.get(PRODUCTS)), work=work))
    return outcome


def _has_target(case: Case, backend: str, peer: str) -> bool:
    return any(most(case.name, direction, peer, backend, "float32") is not None for direction in case.directions)


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
) -> Row:
    """A row from two timings of the same rounds, or three."""
    low, middle, high = ours.ratio_to(theirs)
    place = (case, backend, dtype, peer, contender, direction)
    found = Row(*place, ours.seconds.tolist(), theirs.seconds.tolist(), middle, (low, high), difference, errors)
    if products is None:
        return found
    return replace(found, products=products.seconds.tolist(), floor=products.ratio_to(theirs)[1])


def largest_difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """The largest over all arrays, each over the largest of its numbers."""
    differences = [
        float(np.max(np.abs(a - b))) / max(float(np.max(np.abs(a))), 1e-30)
        for a, b in zip(expected, actual, strict=True)
    ]
    return max(differences) if all(np.isfinite(differences)) else float("nan")


def exact_results(case: Case, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray] | None:
    """out and gradients of the first entry in float64, where its weights are not too large."""
    if 8 * case.T_q * case.T_k > EXACT_BYTES:
        return None
    q, k, v, dout = (x[0].astype(np.float64) for x in inputs)
    scores = case.scale * (q @ k.T)
    if case.causal:
        scores[~np.tri(case.T_q, case.T_k, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = weights @ v
    if case.forward_only:
        return [out[None]]
    dweights = dout @ v.T
    dscores = case.scale * weights * (dweights - np.sum(dout * out, axis=-1, keepdims=True))
    dq, dk, dv = dscores @ k, dscores.T @ q, weights.T @ dout
    return [x[None] for x in ([out, dq, dk + dv] if case.shared else [out, dq, dk, dv])]
