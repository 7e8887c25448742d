"""Items measured by worker processes, which may die of them."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from attnlayers.bench.contenders import LeftOutError
from attnlayers.bench.processes import Failure, end_with_parent, ending, in_process

from .results import Entry
from .setting import device_name

CONTEXT = get_context("spawn")

ROOM = 3.0
"""Seconds before the end of a step in which it stops its workers and writes what it has."""


@dataclass(frozen=True)
class Item:
    """One call that is worth an entry.

    Attributes
    ----------
    name : str
    measure : callable
        At the top of a module; returns a dict, in which ``left_out`` says why there is nothing.
    arguments : tuple
    seconds : float
        After which its worker is killed.
    on_device : bool
        Whether the name of the device belongs to the entry: not where `measure` asks nothing of it.
    """

    name: str
    measure: Callable[..., Entry]
    arguments: tuple[Any, ...] = ()
    seconds: float = 60.0
    on_device: bool = True


class Worker:
    """A process that measures one item after the other, until one of them fails."""

    def __init__(self) -> None:
        self.connection, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_work, args=(other,), daemon=False)
        self.process.start()
        other.close()
        self.item: Item | None = None
        self.begun = 0.0

    def begin(self, item: Item) -> None:
        self.item, self.begun = item, time.monotonic()
        self.connection.send(item)

    def stop(self) -> int | None:
        """The exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def measured(items: Iterable[Item], add: Callable[[Entry], object], seconds: float, count: int = 1) -> None:
    """Hand items to workers, and what they come to to `add`.

    Parameters
    ----------
    items : iterable of Item
    add : callable
    seconds : float
        For all of them. What was not begun by then, or did not end, is an entry with that reason.
    count : int
        Workers at a time.
    """
    end = time.monotonic() + seconds - ROOM
    waiting = deque(items)
    idle: list[Worker] = []
    busy: list[Worker] = []
    while waiting or busy:
        while waiting and len(busy) < count and time.monotonic() < end:
            worker = idle.pop() if idle else Worker()
            worker.begin(waiting.popleft())
            busy.append(worker)
        now = time.monotonic()
        ends = [min(end, worker.begun + _item(worker).seconds) for worker in busy]
        answering = wait([worker.connection for worker in busy], max(0.0, min(ends, default=now) - now))
        for worker in list(busy):
            item, took = _item(worker), time.monotonic() - worker.begun
            entry: Entry = {"item": item.name, "seconds": round(took, 3)}
            if worker.connection in answering:
                found = _answer(worker)
            elif time.monotonic() >= end:
                found = {"left_out": f"cut off after {took:.0f} s: the {seconds:g} s of the step were over"}
                worker.stop()
            elif took >= item.seconds:
                found = _failed(f"no answer within {item.seconds:g} s: killed")
                worker.stop()
            else:
                continue
            busy.remove(worker)
            if "failed" not in found and "left_out" not in found:
                idle.append(worker)
            elif worker.process.is_alive():
                worker.stop()
            add(entry | found)
        if time.monotonic() >= end:
            while waiting:
                add({"item": waiting.popleft().name, "left_out": f"not begun: the {seconds:g} s of the step were over"})
    for worker in idle:
        worker.stop()


def alone(function: Callable[..., Entry], *arguments: Any) -> Entry:
    """What a function finds in a process of its own, without what a worker has loaded."""
    return in_process(guarded, function, arguments)


def guarded(function: Callable[..., Entry], arguments: tuple[Any, ...]) -> Entry:
    """What a function finds; the reason where it cannot take part. Warnings of libraries stay out of the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*arguments)
        except LeftOutError as reason:
            return {"left_out": str(reason)}


def _item(worker: Worker) -> Item:
    if worker.item is None:
        raise RuntimeError("a worker without an item is not busy")
    return worker.item


def _answer(worker: Worker) -> Entry:
    """What a worker sent, or how it ended instead."""
    try:
        found: Entry = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(5)
        return _failed(f"its process ended without an answer: {ending(worker.stop())}")
    return found


def _failed(reason: str) -> Entry:
    return {"failed": asdict(Failure("its process", reason, reason))}


def _work(connection: Connection) -> None:
    """What runs in the worker."""
    end_with_parent()
    while True:
        try:
            item: Item = connection.recv()
        except EOFError:
            return
        try:
            found = guarded(item.measure, item.arguments)
            if item.on_device and "left_out" not in found:
                found = {"device": device_name()} | found
        except Exception as error:
            connection.send({"failed": asdict(Failure.of("measuring", error))})
            return
        connection.send(found)
