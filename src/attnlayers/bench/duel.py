"""One peer against this library on one case, in a process of its own, for its threads and its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from attnbackends import get_backend

from .cases import Case
from .contenders import Contender, Ours
from .outcome import Outcome, row
from .paired import Timing, paired
from .peers import PEERS, Found
from .products import PRODUCTS, Products
from .targets import most

OURS = "attnlayers"
TOLERANCE = {"float32": 1e-4, "TF32": 1e-2, "float16": 1e-2, "bfloat16": 6e-2}
"""Largest difference between two contenders' results, over the largest of the numbers: by what is multiplied."""

ROOM_FOR_PRODUCTS = 1.5
"""Seconds that three contenders need, over those of two, for as many rounds."""

EXACT_BYTES = 2**28
"""Bytes of the float64 weights of one entry up to which the error of half precision is measured against float64."""


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
        A contender whose results are off is not timed; one that raises, at whatever stage, is out from there on.
    """
    outcome = Outcome()
    backend = get_backend(backend_name)
    sets = case.draw()
    found: Found = {}
    with outcome.watching(peer, "making"):
        found = PEERS[peer](case, sets, backend, dtype)
    if not found:
        return outcome
    contenders: dict[str, Contender] = {}
    results: dict[str, list[np.ndarray]] = {}
    for name, make in {OURS: partial(Ours, case, sets, backend, dtype), **found}.items():
        if isinstance(make, str):
            outcome.left_out[name] = make
            continue
        with outcome.watching(name, "making"):
            contenders[name] = make()
        if name in contenders:
            with outcome.watching(name, "first call"):
                results[name] = contenders[name].results()
        if OURS not in results:
            outcome.refused.update(backend.machine.refusals())
            return outcome
    expected = results.pop(OURS)
    exact = exact_results(case, sets[0]) if dtype != "float32" else None
    differences: dict[str, float] = {}
    errors: dict[str, tuple[float, float]] = {}
    for name, theirs in results.items():
        difference = largest_difference(expected, theirs)
        allowed = TOLERANCE.get(contenders[name].precision or dtype, TOLERANCE[dtype])
        if not difference <= allowed:
            outcome.wrong[name] = f"results differ by {difference:.1e} of the largest, {allowed:.0e} allowed"
            continue
        differences[name] = difference
        if exact is not None:
            errors[name] = (
                largest_difference(exact, [x[:1] for x in expected]),
                largest_difference(exact, [x[:1] for x in theirs]),
            )
    contenders = {name: contenders[name] for name in (OURS, *differences)}
    has_target = _has_target(case, backend_name, peer)
    with_products = has_target and backend.on_host and dtype == "float32"
    if with_products:
        with outcome.watching(PRODUCTS, "making"):
            contenders[PRODUCTS] = Products(case, sets, backend)
        seconds *= ROOM_FOR_PRODUCTS
    for direction in case.directions:
        timings = _timed(outcome, contenders, direction, seconds / len(case.directions))
        counted = has_target and not with_products
        work = case.work(direction, 4 if dtype == "float32" else 2) if counted else None
        for name in differences:
            if OURS in timings and name in timings:
                place = (case.name, backend_name, dtype, peer, name, direction)
                of_both = timings[OURS], timings[name], differences[name], errors.get(name)
                made = row(*place, *of_both, timings.get(PRODUCTS), contenders[name].precision)
                outcome.rows.append(replace(made, work=work))
    outcome.refused.update(backend.machine.refusals())
    return outcome


def _timed(outcome: Outcome, contenders: Mapping[str, Contender], direction: str, seconds: float) -> dict[str, Timing]:
    """Timings of the contenders that have not failed so far, and do not now; none without ours."""
    calls: dict[str, Callable[[int], object]] = {}
    for name, contender in contenders.items():
        if name not in outcome.failed and name not in outcome.left_out:
            with outcome.watching(name, f"warm-up of {direction}"):
                if direction == "backward":
                    contender.keep()
                else:
                    contender.kept = []
                calls[name] = getattr(contender, direction)
    if OURS not in calls or calls.keys() <= {OURS, PRODUCTS}:
        return {}

    def failed(name: str, error: Exception) -> None:
        with outcome.watching(name, f"timing of {direction}"):
            raise error

    return paired(calls, seconds, failed=failed)


def _has_target(case: Case, backend: str, peer: str) -> bool:
    return any(most(case.name, direction, peer, backend, "float32") is not None for direction in case.directions)


def largest_difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """The largest over all arrays, each over the largest of its numbers."""
    differences = [
        float(np.max(np.abs(a - b))) / max(float(np.max(np.abs(a))), 1e-30)
        for a, b in zip(expected, actual, strict=True)
    ]
    return max(differences) if all(np.isfinite(differences)) else float("nan")


def exact_results(
    case: Case, inputs: tuple[np.ndarray, ...], xp: Any = np, most_bytes: int = EXACT_BYTES
) -> list[Any] | None:
    """out and gradients of the first entry in float64, where its weights take no more than `most_bytes`.

    They are made by NumPy, or by CuPy on its device.
    """
    if 8 * case.T_q * case.T_k > most_bytes:
        return None
    q, k, v, dout = (xp.asarray(x[0], dtype=xp.float64) for x in inputs)
    scores = case.scale * (q @ k.T)
    if case.causal:
        scores = xp.where(xp.tri(case.T_q, case.T_k, dtype=bool), scores, -xp.inf)
    weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = weights @ v
    if case.forward_only:
        return [out[None]]
    dweights = dout @ v.T
    dscores = case.scale * weights * (dweights - xp.sum(dout * out, axis=-1, keepdims=True))
    dq, dk, dv = dscores @ k, dscores.T @ q, weights.T @ dout
    return [x[None] for x in ([out, dq, dk + dv] if case.shared else [out, dq, dk, dv])]
