"""All cases of `attnlayers bench` in three dtypes: ours against each kernel of PyTorch by name, and its own choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import get_backend
from attnlayers.bench.cases import SWEEP, TABLE, Case, Inputs
from attnlayers.bench.contenders import Contender, Ours
from attnlayers.bench.duel import EXACT_BYTES, OURS, exact_results, largest_difference
from attnlayers.bench.outcome import Outcome
from attnlayers.bench.peers import load, torch_kernels

from .clock import CupyEvents, Events, HostEvents, TorchEvents, times
from .results import Entry
from .setting import REHEARSAL, SHORT, on_device
from .workers import Item, alone

WORKERS = 1
"""Whoever is timed has the device for itself."""

DTYPES = ("float32", "float16", "bfloat16")

MOST_SETS = on_device(4, 1)
"""Sets of inputs in turn."""

MOST_BYTES = 2**31
"""Bytes of float64 weights of one entry, up to which errors are measured: made on the device."""


def cases() -> list[Case]:
    """The cases of the benchmark; in a rehearsal with short axes."""
    found = [*TABLE, *SWEEP]
    if not REHEARSAL:
        return found
    return [
        replace(case, batch=2, T_q=min(case.T_q, 20), T_k=min(case.T_k, 24 if case.T_q != case.T_k else 20), D=16)
        for case in found
        if not SHORT or case.name in ("book", "decode")
    ]


def items(folder: Path) -> Iterator[Item]:
    """float32 first, and the sweep last."""
    for sweep in (False, True):
        for dtype in DTYPES[:2] if SHORT else DTYPES:
            for case in cases():
                if case.sweep is sweep:
                    yield Item(f"{case.name}, {dtype}", compared, (case, dtype), on_device(40, 300))


def compared(case: Case, dtype: str) -> Entry:
    """Times and errors of ours and of every kernel of PyTorch, forward and forward with backward."""
    backend = get_backend("cupy")
    sets = case.draw()[:MOST_SETS]
    exact = exact_results(case, sets[0], backend.xp, EXACT_BYTES if REHEARSAL else MOST_BYTES)
    exact = exact and [backend.to_numpy(array) for array in exact]
    backend.xp.get_default_memory_pool().free_all_blocks()  # for PyTorch
    ours = {OURS: partial(Ours, case, sets, backend, dtype)}
    found = timed(case, ours, CupyEvents(backend.xp), exact)
    if REHEARSAL:  # this process's cuBLAS is none of PyTorch's
        found |= alone(torch_timed, case, sets, dtype, exact)
    else:
        found |= torch_timed(case, sets, dtype, exact)
    entry: Entry = {"contenders": found}
    if case.directions[-1] == "both":
        operations, moved = case.work("both", 4 if dtype == "float32" else 2)
        entry["work"] = {"operations": operations, "bytes": moved}
    if refused := backend.machine.refusals():
        entry["refused"] = refused
    return entry


def torch_timed(case: Case, sets: list[Inputs], dtype: str, exact: list[np.ndarray] | None) -> dict[str, Entry]:
    """The same of PyTorch alone: on the device, or in a rehearsal on the CPU."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    outcome = Outcome()
    found: dict[str, Entry] = {}
    with outcome.watching("PyTorch", "import"):
        torch = load("torch")
        ways = torch_kernels(torch, case, sets, "cpu" if REHEARSAL else "cuda", dtype)
        events: Events = HostEvents() if REHEARSAL else TorchEvents(torch)
        found = timed(case, ways, events, exact)
    return found | missing(outcome)


def timed(case: Case, ways: Any, events: Events, exact: list[np.ndarray] | None) -> dict[str, Entry]:
    """By contender and direction; the reason where there is nothing."""
    outcome = Outcome()
    found: dict[str, Entry] = {}
    for name, make in ways.items():
        if isinstance(make, str):
            outcome.left_out[name] = make
            continue
        with outcome.watching(name, "first call"):
            contender: Contender = make()
            entry: Entry = {"precision": contender.precision} if contender.precision else {}
            results = contender.results()
            if exact is not None:
                entry["error"] = largest_difference(exact, [x[:1] for x in results])
            for direction in ("forward", "both") if "both" in case.directions else ("forward",):
                if direction in case.directions:
                    entry[direction] = times(launching(contender, direction), events)
            found[name] = entry
        contender = None  # type: ignore[assignment]  # its arrays
    return found | missing(outcome)


def launching(contender: Contender, direction: str) -> Callable[[int], object]:
    """The work of a contender without the wait for it."""

    def forward(i: int) -> object:
        return contender.run(contender.sets[i % len(contender.sets)])

    def both(i: int) -> object:
        inputs = contender.sets[i % len(contender.sets)]
        return contender.pull(contender.run(inputs)[1], inputs[3])

    return forward if direction == "forward" else both


def missing(outcome: Outcome) -> dict[str, Entry]:
    left_out: dict[str, Entry] = {name: {"left_out": reason} for name, reason in outcome.left_out.items()}
    return left_out | {
        name: {"failed": {"stage": failure.stage, "reason": failure.reason, "traceback": failure.traceback}}
        for name, failure in outcome.failed.items()
    }
