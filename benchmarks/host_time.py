"""The host's time of calls on CUDA, and what they ask of a device: the real CuPy, on no device.

``python -m benchmarks.host_time [--out FILE] [--tree FOLDER] [--seconds SECONDS]`` needs what `make cuda-tests` needs,
and no GPU: kernels, products and copies within the device do nothing there (tests/cuda_on_cpu, idle), so that what is
left is what Python, CuPy and this library take before a device begins. Each call alternates with its floor: CuPy's own
time to allocate the arrays that the call returns and to launch as many kernels, ready and with as many arguments.
`--tree` measures another checkout of this repository, on its own bench.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

BLAS_ARGUMENTS = 14
"""Arguments of a product of cuBLAS."""

ARRAYS = 6
"""Most arguments of a kernel of the floor that are arrays; the rest are integers, as in the kernels of attention."""

ROW_SECONDS = 0.002
"""CPU time of one round's calls: long against the clock's own."""

STEPS = 2, 12
"""Tokens of two answers; a decoder step is a share of their difference."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    name : str
    call : callable
        Returns its results, and waits for nothing.
    kept : tuple of tuples of int
        Shapes of float32 arrays that it has to make besides: what backward reads.
    without : callable, optional
        What is not part of the row: its counts and its time are taken away.
    each : int
        By what the rest is divided.
    """

    name: str
    call: Callable[[], Sequence[Any]]
    kept: tuple[tuple[int, ...], ...] = ()
    without: Callable[[], Sequence[Any]] | None = None
    each: int = 1


def rows(backend: Any) -> Iterator[Row]:
    """Attention by case, then a step of training and one of an evaluation."""
    from attnlayers import functional as F
    from attnlayers.bench.cases import TABLE
    from attnlayers.bench.contenders import Ours
    from attnlayers.models import AttentionSeq2seq
    from attnlayers.training.optimizers import Adam, clip_grads

    cases = {case.name: case for case in TABLE}

    def forward(ours: Any) -> Sequence[Any]:
        return (ours.run(ours.sets[0])[0],)

    def both(ours: Any) -> Sequence[Any]:
        out, saved = ours.run(ours.sets[0])
        return (out, *ours.pull(saved, ours.sets[0][3]))

    def dropped(ours: Any) -> Sequence[Any]:
        q, k, v, dout = ours.sets[0]
        out, saved = F.attention(q, k, v, dropout=0.1, seed=1)
        return (out, *F.attention_backward(saved, dout))

    def biased(ours: Any) -> Sequence[Any]:
        q, k, v, dout = ours.sets[0]
        out, saved = F.attention(q, k, v, softcap=30.0, bias=bias[: q.shape[-2], : k.shape[-2]])
        return (out, *F.attention_backward(saved, dout))

    bias = backend.asarray(np.zeros((1024, 1024), dtype=np.float32))

    for name, dtype, directions in (
        ("book", "float32", (forward, both)),
        ("mid", "float32", (forward, both)),
        ("long", "float32", (forward, both)),
        ("short", "float32", (both,)),
        ("decode", "float32", (forward,)),
        ("mid", "float32", (dropped,)),
        ("long", "float32", (dropped, biased)),
        ("long", "float16", (both,)),
    ):
        case = cases[name]
        ours = Ours(case, case.draw()[:1], backend, dtype)
        for direction in directions:
            told = {dropped: "dropout, both", biased: "softcap and bias, both"}.get(direction, direction.__name__)
            half = "" if dtype == "float32" else f", {dtype} without cuDNN"
            title = f"`TimeAttention` at {name}" if case.shared else name
            kept = () if direction is forward else ((case.batch, case.T_q),)
            yield Row(f"{title}{half}, {told}", partial(direction, ours), kept)

    N, T_enc, T_dec, V = 128, 29, 10, 59  # as `attnlayers.bench.training` has it
    rng = np.random.default_rng(0)
    model, optimizer = AttentionSeq2seq(V, 16, 256, seed=0, backend=backend), Adam(0.001)
    sources, inputs, labels = (backend.asarray(rng.integers(0, V, (N, T))) for T in (T_enc, T_dec, T_dec))

    def step() -> Sequence[Any]:
        loss = model.forward(sources, inputs, labels)
        model.backward()
        clip_grads(model.grads, 5.0)
        optimizer.update(model.params, model.grads)
        return (loss,)

    yield Row("training step of chapter 8", step)
    # As an evaluation asks; a checkout from before has no such argument.
    asked = {"return_weights": False} if "return_weights" in signature(model.generate).parameters else {}

    def answer(steps: int) -> Sequence[Any]:
        return [x for x in model.generate(sources, 1, 2, steps, **asked) if x is not None]

    short, long = (partial(answer, steps) for steps in STEPS)
    yield Row("a decoder step of an evaluation", long, (), short, STEPS[1] - STEPS[0])


def measured(row: Row, backend: Any, seconds: float) -> Entry:
    """What a row asks of the device, and microseconds of CPU time, its own and its floor's, in turns."""
    from attnlayers.bench.paired import paired

    counted, results = taken(row.call)
    less, _ = taken(row.without) if row.without else ({}, ())
    share = {name: (number - less.get(name, 0)) / row.each for name, number in counted.items()}
    share = {name: number for name, number in share.items() if number}
    sizes = [x.nbytes // row.each for x in results] + [4 * int(np.prod(shape)) for shape in row.kept]
    launches = {name: number for name, number in share.items() if name not in OTHERS}
    arguments = [arguments_of(name) for name, number in launches.items() for _ in range(round(number))]
    calls: dict[str, Callable[[], Any]] = {"ours": row.call, "floor": floor(backend.xp, sizes, arguments)}
    if row.without:
        calls["without"] = row.without
    repeated = {name: _repeated(call) for name, call in calls.items()}
    timings = paired(
        {name: call for name, (call, _) in repeated.items()}, seconds, least=9, warm=0.0, clock=time.process_time
    )
    us = {name: 1e6 * timing.median / repeated[name][1] for name, timing in timings.items()}
    host, own = (us["ours"] - us.get("without", 0.0)) / row.each, us["floor"]
    return {
        "call": row.name,
        "launches": round(sum(launches.values()), 1),
        "copies": round(sum(share.get(name, 0) for name in COPIES), 1),
        "synchronizations": round(share.get("synchronizations", 0), 1),
        "host_us": round(host, 1),
        "floor_us": round(own, 1),
        "ratio": round(host / own, 2),
        "by_name": {name: round(number, 1) for name, number in sorted(share.items())},
    }


COPIES = "to_device", "to_host", "on_device"
OTHERS = (*COPIES, "synchronizations")
"""What is counted besides launches; a product is one."""


def taken(call: Callable[[], Sequence[Any]]) -> tuple[dict[str, int], Sequence[Any]]:
    """How often a call does what, once it has been called before; and its results."""
    from cuda_on_cpu.counts import counts

    for _ in range(3):
        call()
    before = counts()
    results = call()
    found = counts() - before
    others = {name: getattr(found, name) for name in OTHERS}
    return found.launches | {"product": found.products} | others, results


def arguments_of(name: str) -> int:
    """How many arguments a kernel is launched with."""
    if name == "product":
        return BLAS_ARGUMENTS
    if name in (own := signatures()):
        return own[name]
    return max(1, len(name.partition("__")[2].split("_"))) + 1  # CuPy names the dtypes of operands; and a size


def signatures() -> dict[str, int]:
    """The number of parameters of this library's kernels, as their sources say."""
    import attnbackends._cuda

    folder = Path(attnbackends._cuda.__file__).parent / "kernels"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cu*")))
    macros = dict(re.findall(r"^#define (\w+)[ \\\n]+((?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE))
    found = {}
    for name, parameters in re.findall(
        r"__global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^{]*?)\)\s*{", text
    ):
        whole = re.sub(r"\b[A-Z_]+_PARAMETERS\b", lambda match: macros[match.group()], parameters)
        found[name] = whole.count(",") + 1
    return found


def floor(xp: Any, sizes: Sequence[int], arguments: Sequence[int]) -> Callable[[], None]:
    """What allocates arrays of so many bytes, and launches a kernel that is ready for each number of arguments."""
    kernel = xp.RawKernel('extern "C" __global__ void nothing(float *x) {}', "nothing")
    some = [xp.zeros(4, dtype=xp.float32) for _ in range(ARRAYS)]
    ready = [(*some[:count], *([np.int32(1)] * (count - ARRAYS))) for count in arguments]
    counts = [max(1, size // 4) for size in sizes]

    def call() -> None:
        for count in counts:
            xp.empty(count, dtype=xp.float32)
        for given in ready:
            kernel((1,), (32,), given)

    return call


def _repeated(call: Callable[[], Any]) -> tuple[Callable[[int], None], int]:
    """The call as often as a round needs, and how often that is."""
    start = time.process_time()
    for _ in range(3):
        call()
    times = max(1, ceil(3 * ROW_SECONDS / max(1e-6, time.process_time() - start)))

    def together(i: int) -> None:
        for _ in range(times):
            call()

    return together, times


def here(seconds: float) -> Entry:
    """All rows, in this process, which is on the bench."""
    from attnbackends import get_backend

    backend = get_backend("cupy")
    found = [measured(row, backend, seconds) for row in rows(backend)]
    return {
        "what": "the host's time of the real CuPy, on no device",
        "date": time.strftime("%Y-%m-%d"),
        "cupy": backend.xp.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "rows": found,
    }


def lines(found: Entry) -> Iterator[str]:
    """The table."""
    yield f"The host's time of the real CuPy {found['cupy']}, on no device: microseconds of CPU time, median"
    yield f"{'call':44}{'launches':>9}{'copies':>8}{'waits':>7}{'host us':>10}{'floor us':>10}{'ratio':>7}"
    for row in found["rows"]:
        counted = f"{row['launches']:9g}{row['copies']:8g}{row['synchronizations']:7g}"
        yield f"{row['call']:44}{counted}{row['host_us']:10.0f}{row['floor_us']:10.0f}{row['ratio']:7.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_time", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a file for the table as JSON")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that is measured [this one]")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time for the rounds of a row [1]")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(here(given.seconds)))
        return
    tree = given.tree.resolve()
    sys.path.insert(0, str(tree / "tests"))
    from cuda_on_cpu import environment, unavailable

    if reason := unavailable():
        sys.exit(f"benchmarks.host_time: {reason}")
    env = environment(mode="idle")
    hook, *_ = env["PYTHONPATH"].split(os.pathsep)
    roots = [tree / "src", tree / "backends", ROOT, tree / "tests"]
    env["PYTHONPATH"] = os.pathsep.join([hook, *map(str, roots)])
    command = [sys.executable, "-m", "benchmarks.host_time", "--here", "--seconds", str(given.seconds)]
    ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"benchmarks.host_time: its process ended with code {ended.returncode}")
    found = json.loads(ended.stdout.splitlines()[-1])
    print("\n".join(lines(found)))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
