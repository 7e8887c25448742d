"""The device's time and the host's, told apart.

A call of a few microseconds on the device takes longer to launch than to run. Four times say which it was: `wall`, one
call and the wait for it; `host`, what launching it costs when nothing is waited for; `events`, between two events
around several calls in a row, which is the larger of both shares; and `device`, the same while the device is kept busy
with something else until all of them are launched, so that they then run without a gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .setting import on_device

CALLS = 20
"""In a row."""

HELD_BYTES = on_device(2**30, 2**16)
"""Written to keep the device busy: a third of a millisecond at 3 TB/s."""

MOST_HOLDS = 64
"""Most kernels that hold up a device's queue: it has room for them and for the calls that are measured."""

ROUNDS = on_device(9, 2)
"""Rounds, of which the median counts."""

ROW, SECONDS = 0.04, 0.4
"""Seconds that a row of calls takes at most, if it has more than two; and all rounds, if they are more than three."""


class Events(Protocol):
    """Events of a library, on its own stream."""

    def record(self) -> Any: ...

    def seconds(self, begin: Any, end: Any) -> float: ...

    def synchronize(self) -> None: ...

    def hold(self) -> None:
        """Have the device write `HELD_BYTES`."""


class CupyEvents:
    """CuPy's, on the current stream."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._room = xp.empty(HELD_BYTES, dtype=xp.uint8)

    def record(self) -> Any:
        event = self._xp.cuda.Event()
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return 1e-3 * float(self._xp.cuda.get_elapsed_time(begin, end))

    def synchronize(self) -> None:
        self._xp.cuda.get_current_stream().synchronize()

    def hold(self) -> None:
        self._room.data.memset_async(1, HELD_BYTES)


class TorchEvents:
    """PyTorch's, on its current stream."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._room = torch.empty(HELD_BYTES, dtype=torch.uint8, device="cuda")

    def record(self) -> Any:
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return 1e-3 * float(begin.elapsed_time(end))

    def synchronize(self) -> None:
        self._torch.cuda.synchronize()

    def hold(self) -> None:
        self._room.zero_()


class HostEvents:
    """A clock for a library without a device, to rehearse with: what it measures is wall time."""

    def record(self) -> Any:
        return time.perf_counter()

    def seconds(self, begin: Any, end: Any) -> float:
        return float(end - begin)

    def synchronize(self) -> None:
        pass

    def hold(self) -> None:
        pass


def times(launch: Callable[[int], object], events: Events, calls: int = CALLS) -> dict[str, float]:
    """Microseconds a call, as ``wall_us``, ``host_us``, ``events_us`` and ``device_us``.

    Parameters
    ----------
    launch : callable
        Asks for the work, with a running number, and waits for nothing.
    events : Events
    calls : int
        In a row, fewer of long ones.
    """
    wall, host, around, device = [], [], [], []
    for i in range(2):
        launch(i)
    events.synchronize()
    held = _held(events)
    begin = time.perf_counter()
    launch(0)
    events.synchronize()
    once = max(1e-7, time.perf_counter() - begin)
    calls = max(2, min(calls, int(ROW / once)))
    for _ in range(max(3, min(ROUNDS, int(SECONDS / (3 * calls * once))))):
        begin = time.perf_counter()
        launch(0)
        events.synchronize()
        wall.append(time.perf_counter() - begin)
        around.append(_row(launch, events, calls, 0, host))
        holds = int(min(MOST_HOLDS, 1 + 1.5 * calls * host[-1] / held))
        device.append(_row(launch, events, calls, holds, []))
    found = {"wall_us": wall, "host_us": host, "events_us": around, "device_us": device}
    return {name: round(1e6 * float(np.median(seconds)), 2) for name, seconds in found.items()}


def _row(launch: Callable[[int], object], events: Events, calls: int, holds: int, host: list[float]) -> float:
    """Seconds of a call between two events around several, after so many holds; the host's go to `host`."""
    for _ in range(holds):
        events.hold()
    first = events.record()
    begin = time.perf_counter()
    for i in range(calls):
        launch(i)
    host.append((time.perf_counter() - begin) / calls)
    last = events.record()
    return events.seconds(first, last) / calls


def _held(events: Events) -> float:
    """Seconds of a hold."""
    events.hold()
    begin = events.record()
    for _ in range(4):
        events.hold()
    return max(1e-6, events.seconds(begin, events.record()) / 4)
