"""All duels, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from attnbackends import get_backend

from .cases import TRAINING, Case
from .duel import OURS, duel
from .machine import describe, describe_peer
from .memory import added_arrays, added_memory
from .outcome import Outcome, Row
from .peers import PEERS, takes_part
from .processes import Failure, ProcessError, in_process
from .targets import LONG_T, MEMORY_MB
from .training import duel_of_steps

MEMORY = "memory"

OPEN = "not yet measured"
"""What a report says of CUDA until a duel on it has ended, with the cause."""


@dataclass(frozen=True)
class Part:
    """What one process measures: the time or the memory of a case, or the training step."""

    what: str
    case: Case | None
    backend: str
    dtype: str
    peer: str

    @property
    def title(self) -> str:
        name = self.what if self.case is None else self.case.name
        memory = " memory" if self.what == MEMORY else ""
        return f"{name}{memory}, {self.backend} {self.dtype}, {self.peer}"


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    machine : dict of str to str
    seconds : float
        For the rounds of one duel.
    rows : list of Row
    memory : list of dict
        ``case``, ``backend``, ``contender``, and ``megabytes``, the added peak, or ``reason`` where there is none;
        ``arrays``, megabytes of arrays alone, where ours misses its target on a CPU.
    left_out, wrong : list of dict
        ``part``, ``contender``, ``reason``.
    failed : list of dict
        ``part``, ``contender``, ``stage``, ``reason``, ``traceback``: whoever raised, or whose process was killed.
    refused : list of dict
        ``part``, ``way``, ``reason``: what a way of ours refused, so that another one took the call.
    cuda : str
        ``measured``, or that it is not yet and why.
    """

    machine: dict[str, str]
    seconds: float
    rows: list[Row] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    wrong: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    cuda: str = f"{OPEN}: no duel on it has ended"

    def add_failure(self, part: str, contender: str, failure: Failure) -> None:
        """Note an exception."""
        self.failed.append({"part": part, "contender": contender} | asdict(failure))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(cases: Sequence[Case], training: bool, backends: Sequence[str], peers: Sequence[str]) -> list[Part]:
    """All parts, peer by peer, so that what a time limit cuts off is what matters least."""
    parts = []
    order = [peer for peer in PEERS if peer in peers]
    for peer in order:
        for backend in backends:
            for case in cases:
                if takes_part(peer, case, backend):
                    dtypes = ["float32"]
                    if not get_backend(backend).on_host and case.T_k >= LONG_T and not case.sweep:
                        dtypes += ["float16", "bfloat16"]
                    parts += [Part("time", case, backend, dtype, peer) for dtype in dtypes]
            if training and peer == "torch":
                parts.append(Part(TRAINING, None, backend, "float32", peer))
    for backend in backends:
        measured = [case for case in cases if case.memory]
        for case in measured:
            parts += [Part(MEMORY, case, backend, "float32", peer) for peer in (OURS, *order) if peer != "loops"]
    return parts


def begin(backends: Sequence[str], peers: Sequence[str], seconds: float) -> tuple[Report, list[str]]:
    """An empty report, and those of the peers that can be loaded."""
    cuda = not all(get_backend(name).on_host for name in backends)
    libraries = [peer for peer in peers if peer in ("torch", "jax")]
    report = Report(describe(list(backends)), seconds)
    there = list(peers)
    for name in libraries:
        try:
            found = in_process(describe_peer, name, cuda)
        except ProcessError as error:
            report.add_failure("all", name, Failure.of("import", error))
            there.remove(name)
            continue
        if isinstance(found, str):
            report.machine[name] = found
        else:
            report.left_out.append({"part": "all", "contender": name, "reason": found.reason})
            there.remove(name)
    return report, there


def measure(report: Report, parts: Sequence[Part], minutes: float | None = None) -> Iterator[Part]:
    """Fill the report; each part is yielded before it begins.

    Parameters
    ----------
    report : Report
    parts : sequence of Part
    minutes : float, optional
        After so many, nothing new is begun; what is left is noted as left out.
    """
    start = time.monotonic()
    for part in parts:
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            reason = f"the {minutes:g} minutes were over"
            report.left_out.append({"part": part.title, "contender": part.peer, "reason": reason})
            continue
        yield part
        try:
            _measure(report, part)
        except Exception as error:  # ours as well as theirs: what follows is measured all the same
            report.add_failure(part.title, part.peer, Failure.of("its process", error))


def _measure(report: Report, part: Part) -> None:
    if part.what == MEMORY and part.case is not None:
        place = {"case": part.case.name, "backend": part.backend}
        plain = in_process(added_memory, part.case, part.backend, part.peer, initializer=None)
        for contender, found in plain.items():
            entry: dict[str, Any] = place | {"contender": contender}
            report.memory.append(entry)
            if isinstance(found, Failure):
                entry["reason"] = found.reason
                report.add_failure(part.title, contender, found)
                continue
            entry["reason" if isinstance(found, str) else "megabytes"] = found
            on_host = get_backend(part.backend).on_host
            if contender == OURS and on_host and not isinstance(found, str) and found > MEMORY_MB:
                entry["arrays"] = in_process(added_arrays, part.case, part.backend, initializer=None)
        return
    if part.case is None:
        outcome: Outcome = in_process(duel_of_steps, part.backend, report.seconds)
    else:
        seconds = report.seconds / 3 if part.case.sweep else report.seconds
        outcome = in_process(duel, part.case, part.backend, part.dtype, part.peer, seconds)
    report.rows += outcome.rows
    if outcome.rows and not get_backend(part.backend).on_host:
        report.cuda = "measured"
    for known, into in ((outcome.left_out, report.left_out), (outcome.wrong, report.wrong)):
        into += [{"part": part.title, "contender": name, "reason": reason} for name, reason in known.items()]
    for name, failure in outcome.failed.items():
        report.add_failure(part.title, name, failure)
    report.refused += [{"part": part.title, "way": way, "reason": reason} for way, reason in outcome.refused.items()]
