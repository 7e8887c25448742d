"""A call in a process of its own, and what is kept of one that failed."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, TypeVar

from attnbackends import keep_freed_memory

T = TypeVar("T")

CAUSE = 300
"""Characters of an error's text that a table shows; the traceback has all of them."""


@dataclass(frozen=True)
class Failure:
    """An exception as a report keeps it.

    Attributes
    ----------
    stage : str
        What was being done: making, first call, warm-up, timing, …
    reason : str
        Type and text of the exception, on one line.
    traceback : str
    """

    stage: str
    reason: str
    traceback: str

    @classmethod
    def of(cls, stage: str, error: BaseException) -> Failure:
        """What an exception leaves; one from `in_process` has the reason and the traceback of the other process."""
        if isinstance(error, ProcessError):
            return cls(stage, error.reason, error.traceback)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:CAUSE]}"
        return cls(stage, reason, "".join(traceback.format_exception(error)))


class ProcessError(RuntimeError):
    """A call of `in_process` that gave no answer."""

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason)
        self.reason, self.traceback = reason, traceback


def in_process(
    function: Callable[..., T],
    *arguments: Any,
    initializer: Callable[[], object] | None = keep_freed_memory,
    limit: float | None = None,
) -> T:
    """Call a function in a fresh process, after `initializer`, and wait for what it returns.

    By default no contender there pays for memory that the one before gave back: which of them did depended on what was
    allocated earlier, and was up to ten times the computation (benchmarks/NOTES.md).

    Parameters
    ----------
    function : callable
    *arguments
    initializer : callable, optional
    limit : float, optional
        Seconds after which the process is killed.

    Raises
    ------
    ProcessError
        If the function raises, its process ends without an answer, or the limit is over.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, initializer, function, arguments))
    process.start()
    sender.close()  # the other process has its own: where that one ends, reading ends
    try:
        if not receiver.poll(limit):
            reason = f"no answer within {limit:g} seconds: killed"
            raise ProcessError(reason, reason)
        answer = receiver.recv()
    except (EOFError, OSError):
        process.join()
        reason = f"its process ended without an answer: {ending(process.exitcode)}"
        raise ProcessError(reason, reason) from None
    finally:
        if process.is_alive():
            process.join(5)  # it has answered, and only needs to end
            process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, Failure):
        raise ProcessError(answer.reason, answer.traceback)
    found: T = answer
    return found


def _answer(
    sender: Connection, initializer: Callable[[], object] | None, function: Callable[..., Any], arguments: Any
) -> None:
    """What runs in the other process: the function's result, or the `Failure` that takes its place."""
    end_with_parent()
    try:
        if initializer is not None:
            initializer()
        sender.send(function(*arguments))
    except Exception as error:
        sender.send(Failure.of("call", error))


def end_with_parent() -> None:
    """End this process when the one that started it does: nobody waits for its answer, and others need the device."""
    parent = parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent() needs a process that multiprocessing started")

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=end, daemon=True).start()


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
    return f"exit code {code}"
