"""Training: the step of chapter 8 and an epoch of it against PyTorch with TF32 on and off, and who takes the time."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import get_backend
from attnlayers.bench import training as bench
from attnlayers.bench.duel import OURS
from attnlayers.bench.outcome import Outcome
from attnlayers.bench.paired import paired
from attnlayers.bench.peers import TF32, load

from .attention import missing
from .clock import CupyEvents
from .results import Entry
from .setting import REHEARSAL, ROOT, environment, on_device
from .workers import Item, alone

WORKERS = 1

SIZES = {"N": 4, "T_ENC": 5, "T_DEC": 3, "H": 8}
"""Sizes of the step in a rehearsal."""

SETTINGS = {f"PyTorch, {TF32}": True, "PyTorch, float32": False}

SECONDS = on_device(5, 0)
"""For the rounds of all steps."""

PROFILED = on_device(10, 1)
"""Steps that are profiled."""

EPOCH = on_device(352, 2)
"""Steps of an epoch: 45,000 dates in batches of 128."""

PAIRS = "".join(f"{a}{b}\t{b}{a}\n" for a in "abcdef" for b in "abcdef")
"""What an epoch is rehearsed on, in the place of the dates."""

Steps = dict[str, Callable[[int], Any]]


def items(folder: Path) -> Iterator[Item]:
    seconds = on_device(35, 300)
    yield Item("step", stepped, (), seconds)
    yield Item("epoch, attnlayers", epoch, (), on_device(40, 500))
    yield Item("profile, attnlayers", profiled_ours, (), seconds)
    yield Item("events, attnlayers", launches, (), seconds)
    for name, tf32 in SETTINGS.items():
        yield Item(f"epoch, {name}", apart, (torch_epoch, tf32), seconds, on_device=not REHEARSAL)
        yield Item(f"profile, {name}", apart, (profiled_torch, tf32), seconds, on_device=not REHEARSAL)


def apart(function: Callable[[bool], Entry], tf32: bool) -> Entry:
    """PyTorch alone, in a process without CuPy."""
    return alone(function, tf32)


def our_step() -> Callable[[int], Any]:
    """A step of ours."""
    _shrink()
    step, _ = bench.our_step(get_backend("cupy"), bench.draw_batches())
    return step


def torch_steps() -> Steps:
    """PyTorch's steps by setting, from weights as ours begin with."""
    _shrink()
    _, model = bench.our_step(get_backend("numpy"), bench.draw_batches())
    device = "cpu" if REHEARSAL else "cuda"
    return {
        name: bench.torch_step(device, bench.draw_batches(), model.state(), tf32) for name, tf32 in SETTINGS.items()
    }


def stepped() -> Entry:
    """Milliseconds of a step, whole and waited for, in turns; whether the first losses agree."""
    outcome = Outcome()
    steps: Steps = {}
    with outcome.watching(OURS, "making"):
        steps[OURS] = our_step()
    if REHEARSAL:  # in a process of its own, not in turns
        theirs = alone(torch_alone)
    else:
        theirs = {}
        with outcome.watching("PyTorch", "making"):
            steps |= torch_steps()
    losses: dict[str, list[float]] = {}
    for name, step in list(steps.items()):
        with outcome.watching(name, "first steps"):
            losses[name] = [float(step(i)) for i in range(bench.FIRST_STEPS)]
    found = theirs | _timed({name: steps[name] for name in losses}, outcome)
    return {"contenders": found | missing(outcome), "losses": losses}


def torch_alone() -> dict[str, Entry]:
    outcome = Outcome()
    with outcome.watching("PyTorch", "making"):
        return _timed(torch_steps(), outcome) | missing(outcome)
    return missing(outcome)


def _timed(steps: Steps, outcome: Outcome) -> dict[str, Entry]:
    def failed(name: str, error: Exception) -> None:
        with outcome.watching(name, "timing"):
            raise error

    timings = paired(steps, SECONDS, least=on_device(20, 2), warm=0.0, failed=failed)
    return {name: {"ms": round(1e3 * timing.median, 4)} for name, timing in timings.items()}


def epoch() -> Entry:
    """One epoch of `attnlayers train dates` as anyone runs it, on CUDA: its own figures."""
    with tempfile.TemporaryDirectory() as room:
        data: list[str] = ["dates"]
        if REHEARSAL:
            path = Path(room, "pairs.tsv")
            path.write_text(PAIRS, encoding="utf-8")
            data = [str(path), "--hidden-size", "8", "--embedding-size", "4", "--batch-size", "32"]
        command = [sys.executable, "-m", "attnlayers.cli", "train", *data, "--epochs", "1", "--out", f"{room}/run"]
        begin = time.monotonic()
        done = subprocess.run(
            command, env=environment(ATTN_GPU="1"), cwd=ROOT, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - begin
        if done.returncode:
            raise RuntimeError(f"attnlayers train ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        with Path(room, "run", "metrics.csv").open(encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
    return {"process_seconds": round(took, 2), "seconds_of_steps": last.pop("seconds"), **last}


def torch_epoch(tf32: bool) -> Entry:
    """Seconds of as many steps of PyTorch's, without reading data and without an evaluation."""
    step = torch_steps()[_name(tf32)]
    for i in range(bench.FIRST_STEPS):
        step(i)
    begin = time.perf_counter()
    for i in range(EPOCH):
        step(i)
    return {"seconds_of_steps": round(time.perf_counter() - begin, 3), "steps": EPOCH}


def profiled_ours() -> Entry:
    """Microseconds a step by kernel of the device, by PyTorch's profiler: it sees what CuPy launches, too."""
    step = our_step()
    if REHEARSAL:
        step(0)
        return {"left_out": "PyTorch's profiler cannot be in one process with a fake cuBLAS"}
    return _profile(step)


def profiled_torch(tf32: bool) -> Entry:
    return _profile(torch_steps()[_name(tf32)])


def _profile(step: Callable[[int], Any]) -> Entry:
    torch = load("torch")
    profiler = torch.profiler
    for i in range(bench.FIRST_STEPS):
        step(i)
    activity = profiler.ProfilerActivity.CPU if REHEARSAL else profiler.ProfilerActivity.CUDA
    with profiler.profile(activities=[activity]) as profile:
        for i in range(PROFILED):
            step(i)
    wanted = "CPU" if REHEARSAL else "CUDA"
    times: dict[str, list[float]] = {}
    for event in profile.events():
        if str(event.device_type).endswith(wanted):
            times.setdefault(event.name, []).append(event.time_range.elapsed_us())
    return _by_kernel(times)


def launches() -> Entry:
    """Microseconds a step of our own kernels and of products, by events around each of them."""
    backend = get_backend("cupy")
    step, events = our_step(), CupyEvents(backend.xp)
    for i in range(bench.FIRST_STEPS):
        step(i)
    around: list[tuple[str, Any, Any]] = []

    def watched(function: Callable[..., Any], name: str | None, *arguments: Any, **options: Any) -> Any:
        begin = events.record()
        result = function(*arguments, **options)
        around.append((name or arguments[0], begin, events.record()))
        return result

    ready = backend._kernels.ready

    def watched_ready(name: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        return partial(watched, ready(name, *arguments, **options), name)

    backend._kernels.launch = partial(watched, backend._kernels.launch, None)
    backend._kernels.ready = watched_ready
    for way in ("_attention_kernels", "_weighted"):  # which keep what they launch
        backend.__dict__.pop(way, None)
    backend.matmul = partial(watched, backend.matmul, "product")
    for i in range(PROFILED):
        step(i)
    times: dict[str, list[float]] = {}
    for name, begin, end in around:
        times.setdefault(name, []).append(1e6 * events.seconds(begin, end))
    return _by_kernel(times)


def _by_kernel(times: dict[str, list[float]]) -> Entry:
    """The kernels of one step: the sum of their times, the number of launches, and the kernels that take most."""
    found = {name: (sum(some) / PROFILED, len(some) / PROFILED, float(np.median(some))) for name, some in times.items()}
    most = sorted(found.items(), key=lambda pair: -pair[1][0])[:40]
    return {
        "us": round(sum(total for total, _, _ in found.values()), 2),
        "launches": round(sum(count for _, count, _ in found.values()), 2),
        "kernels": [
            {"name": name[:160], "us": round(total, 2), "launches": round(count, 2), "median_us": round(median, 2)}
            for name, (total, count, median) in most
        ],
    }


def _name(tf32: bool) -> str:
    return next(name for name, allowed in SETTINGS.items() if allowed == tf32)


def _shrink() -> None:
    if REHEARSAL:
        for name, value in SIZES.items():
            setattr(bench, name, value)
