"""Layers and attention against float64, on memory that is poisoned, twice, with the same bits.

Each check runs the same code on CuPy and, in float64, on NumPy. All memory that CuPy hands out is filled with NaN
before, so that what a kernel does not write shows. ``python -m benchmarks.device.exactness NAME...`` runs some checks
in this process, without CuPy's pool, for `compute-sanitizer`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import get_backend
from attnlayers import functional as F
from attnlayers import layers
from attnlayers.bench.contenders import dtype_of
from attnlayers.bench.duel import TOLERANCE, largest_difference
from attnlayers.training.optimizers import Adam, clip_grads

from .results import Entry
from .setting import SHORT, on_device
from .workers import Item

WORKERS = on_device(6, 2)

ALLOWED = TOLERANCE | {"float64": 1e-11}

Array = Any
Move = Callable[[np.ndarray], Array]
Check = Callable[[Any, Move, np.random.Generator], list[Array]]
"""Called with a backend, what moves an array to it in the dtype of the check, and a generator: arrays to compare."""

DTYPES = ("float32", "float64", "float16", "bfloat16")
HALF = {"float16", "bfloat16"}


def attend(q: tuple[int, ...], k: tuple[int, ...], v: int, backward: bool = True, **options: Any) -> Check:
    """A check of attention on queries and keys of these shapes, and values of size `v`.

    `options` are those of `attention`; ``masked`` draws a mask, ``biased`` a bias.
    """

    def check(backend: Any, move: Move, rng: np.random.Generator) -> list[Array]:
        arrays = [rng.standard_normal(shape) for shape in (q, k, (*k[:-1], v), (*q[:-1], v))]
        given = dict(options)
        if given.pop("sunk", False):  # a logit for each row that takes weight
            given["sinks"] = move(rng.standard_normal(q[:-2]))
        if given.pop("masked", False):
            given["mask"] = backend.asarray(rng.random((*q[:-1], k[-2])) < 0.7)
        if given.pop("biased", False):
            given["bias"] = move(rng.standard_normal((*q[:-1], k[-2])))
        out, saved = F.attention(*map(move, arrays[:3]), **given)
        return [out, *F.attention_backward(saved, move(arrays[3]))] if backward else [out]

    return check


def run(make: Callable[..., Any], inputs: tuple[tuple[int, ...], ...], *weights: tuple[int, ...]) -> Check:
    """A check of a layer with weights of these shapes: outputs, gradients of inputs and of weights."""

    def check(backend: Any, move: Move, rng: np.random.Generator) -> list[Array]:
        layer = make(*(move(0.3 * rng.standard_normal(shape)) for shape in weights))
        out = layer.forward(*(move(rng.standard_normal(shape)) for shape in inputs))
        gradients = layer.backward(move(rng.standard_normal(tuple(out.shape))))
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return [out, *(x for x in gradients if x is not None), *layer.grads]

    return check


def adam(*shapes: tuple[int, ...]) -> Check:
    """A check of two clipped steps of Adam."""

    def check(backend: Any, move: Move, rng: np.random.Generator) -> list[Array]:
        params, optimizer = [move(rng.standard_normal(shape)) for shape in shapes], Adam(0.01)
        for _ in range(2):
            grads = [move(rng.standard_normal(shape)) for shape in shapes]
            clip_grads(grads, 1.0)
            optimizer.update(params, grads)
        return params

    return check


def softmax(*shape: int) -> Check:
    """A check of the softmax over the last axis."""
    return lambda backend, move, rng: [backend.softmax(move(3 * rng.standard_normal(shape)))]


def sums(rows: int, columns: int) -> Check:
    """A check of sums over rows."""
    return lambda backend, move, rng: [backend.sum_rows(move(rng.standard_normal((rows, columns))))]


def cross_entropy(rows: int, V: int) -> Check:
    """A check of cross-entropy with smoothing, and rows that do not count."""

    def check(backend: Any, move: Move, rng: np.random.Generator) -> list[Array]:
        labels = backend.asarray(np.where(rng.random(rows) < 0.3, -1, rng.integers(0, V, rows)))
        loss, saved = F.cross_entropy(move(3 * rng.standard_normal((rows, V))), labels, label_smoothing=0.1)
        return [loss, F.cross_entropy_backward(saved, 2.0)]

    return check


def scatter(rows: int, width: int, count: int, anew: bool = False) -> Check:
    """A check of sums into rows by index, half of them into one row."""

    def check(backend: Any, move: Move, rng: np.random.Generator) -> list[Array]:
        ids = np.where(rng.random(count) < 0.5, rows // 2, rng.integers(0, rows, count))
        target = move(rng.standard_normal((rows, width)))
        backend.scatter_add(target, backend.asarray(ids), move(rng.standard_normal((count, width))), anew)
        return [target]

    return check


def lstm(N: int, T: int, D: int, H: int, scale: float = 1.0) -> Check:
    """A check of an LSTM whose weights are drawn smaller by a power of 2, so that many units do not saturate."""

    def make(Wx: Array, Wh: Array, b: Array) -> layers.TimeLSTM:
        return layers.TimeLSTM(Wx * scale, Wh * scale, b)

    return run(make, ((N, T, D),), (D, 4 * H), (H, 4 * H), (4 * H,))


LONG, LONGER = on_device(1024, 70), on_device(2048, 130)
CHECKS: dict[str, Check] = {
    "book": run(layers.TimeAttention, ((128 if LONG > 70 else 3, 29, 256), (128 if LONG > 70 else 3, 10, 256))),
    "short": attend((on_device(32, 1), 64, 256), (on_device(32, 1), 64, 256), 256),
    "mid": attend((on_device(16, 2), 256, 64), (on_device(16, 2), 256, 64), 64),
    "long": attend((on_device(16, 1), LONG, 64), (on_device(16, 1), LONG, 64), 64),
    "causal": attend((on_device(8, 1), LONGER, 64), (on_device(8, 1), LONGER, 64), 64, causal=True),
    "wide": attend((2, on_device(300, 70), 128), (2, on_device(300, 70), 128), 96, causal=True),
    "odd": attend((3, 67, 37), (3, 131, 37), 53),
    "decode": attend((on_device(64, 2), 1, 64), (on_device(64, 2), on_device(4096, 200), 64), 64, backward=False),
    "few queries": attend((3, 10, 64), (3, on_device(2000, 150), 64), 64),
    "window": attend((2, 150, 32), (2, 150, 32), 32, window=(17, 5)),
    "lengths": attend((3, 70, 24), (3, 90, 24), 24, key_lengths=[90, 1, 33]),
    "grouped": attend((2, 8, 40, 32), (2, 2, 40, 32), 32, grouped=True, causal=True),
    "masked": attend((2, 70, 40), (2, 90, 40), 40, masked=True),
    "bias": attend((2, 70, 40), (2, 90, 40), 40, biased=True),
    "softcap": attend((2, 70, 40), (2, 90, 40), 40, softcap=5.0),
    "products": attend((4, 200, 136), (4, 150, 136), 136, masked=True, softcap=5.0, dropout=0.2, seed=3),
    "products, long rows": attend((2, 20, 160), (2, on_device(3000, 1100), 160), 160, dropout=0.2, seed=3),
    "dropout": attend((8, 40, 32), (8, 50, 32), 32, dropout=0.3, seed=5),
    "small, options": attend((8, 50, 32), (8, 50, 32), 32, softcap=5.0, sunk=True, dropout=0.3, seed=5, causal=True),
    "long, options": attend(
        (on_device(16, 1), LONG, 64),
        (on_device(16, 1), LONG, 64),
        64,
        causal=True,
        softcap=5.0,
        biased=True,
        sunk=True,
        dropout=0.3,
        seed=5,
        keep_bytes=0,
    ),
    "few queries, options": attend(
        (3, 10, 64), (3, on_device(2000, 150), 64), 64, softcap=5.0, biased=True, sunk=True, dropout=0.3, seed=5
    ),
    "wide, options": attend(
        (2, on_device(300, 70), 250),
        (2, on_device(300, 70), 250),
        256,
        softcap=5.0,
        biased=True,
        sunk=True,
        keep_bytes=0,
    ),
    "decode, options": attend(
        (4, 12, 1, 64),
        (4, 3, on_device(3000, 300), 64),
        64,
        grouped=True,
        causal=True,
        query_start="end",
        softcap=5.0,
        sunk=True,
        dropout=0.3,
        seed=5,
        backward=False,
    ),
    "decode, wide": attend(
        (5, 11, 250), (5, on_device(3000, 300), 250), 256, window=(2000, 3), query_start="end", backward=False
    ),
    "LSTM, few rows": lstm(5, 7, 11, 33),
    "LSTM, many rows": lstm(on_device(128, 20), on_device(29, 3), 16, on_device(256, 40)),
    "LSTM, 650 units": lstm(on_device(20, 3), on_device(35, 3), on_device(650, 5), on_device(650, 41), scale=0.125),
    "LSTM, too many units": lstm(4, 3, 16, on_device(1100, 1057), scale=0.125),
    "GRU": run(layers.TimeGRU, ((5, 7, 11),), (11, 3 * 33), (33, 3 * 33), (3 * 33,)),
    "softmax": softmax(7, 3, 300),
    "Adam": adam((13, 7), (1000,), (3,)),
    "scatter": scatter(59, 16, 3712, anew=True),
    "scatter, large table": scatter(on_device(50257, 500), 300, on_device(2048, 90), anew=True),
    "sums of rows": sums(on_device(3712, 100), 1024),
    "cross-entropy": cross_entropy(on_device(1280, 20), 59),
    "cross-entropy, many classes": cross_entropy(on_device(512, 5), on_device(50257, 300)),
}
"""By name. In half precision those of attention alone."""

SMALL = (
    "odd",
    "window",
    "lengths",
    "grouped",
    "masked",
    "LSTM, few rows",
    "softmax",
    "Adam",
    "sums of rows",
    "cross-entropy",
)
"""Calls that are small enough for a sanitizer, which takes some hundred times as long."""


def items(folder: Path) -> Iterator[Item]:
    for name in SMALL if SHORT else CHECKS:
        for dtype in DTYPES:
            if SHORT and dtype != ("float16" if name == "odd" else "float32"):
                continue
            if dtype not in HALF or is_attention(name):
                yield Item(f"{name}, {dtype}", compare, (name, dtype), on_device(30, 300))


def is_attention(name: str) -> bool:
    """Whether a check is one of attention, which takes half precision."""
    return list(CHECKS).index(name) < list(CHECKS).index("LSTM, few rows")


def compare(name: str, dtype: str, poisoned: bool = True) -> Entry:
    """Largest error of any result over its largest number, launches by kernel, and whether it came twice the same."""
    backend = get_backend("cupy")
    if poisoned:
        poison(backend.xp)
    else:
        backend.xp.cuda.set_allocator(None)
    launched = count_launches(backend)
    first = results(name, backend, dtype)
    names = dict(launched)
    second = results(name, backend, dtype)
    kind = dtype_of(backend, dtype)
    exact = results(name, get_backend("numpy"), "float64", kind)
    error = largest_difference(exact, [x.astype(np.float64) for x in first])
    same = all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    found: Entry = {"error": error, "allowed": ALLOWED[dtype], "same": same, "launched": names}
    found |= {"refused": refused} if (refused := backend.machine.refusals()) else {}
    if not error <= ALLOWED[dtype]:
        raise ArithmeticError(f"{name}, {dtype}: an error of {error:.1e}, {ALLOWED[dtype]:.0e} allowed; {found}")
    if not same and dtype not in HALF:  # cuDNN sums the gradient of queries in any order
        raise ArithmeticError(f"{name}, {dtype}: two runs differ; {found}")
    return found


def results(name: str, backend: Any, dtype: str, rounded_to: Any = None) -> list[np.ndarray]:
    """What a check comes to on a backend, on the host; its inputs are first `rounded_to` a dtype."""
    kind = dtype_of(backend, dtype)

    def move(array: np.ndarray) -> Array:
        rounded = array if rounded_to is None else array.astype(rounded_to)
        return backend.asarray(rounded.astype(kind))

    arrays = CHECKS[name](backend, move, np.random.default_rng(0))
    return [np.array(backend.to_numpy(array)) for array in arrays]


def poison(xp: Any) -> None:
    """Have CuPy's pool hand out memory in which every number is NaN."""
    pool = xp.get_default_memory_pool()

    def allocate(size: int) -> Any:
        memory = pool.malloc(size)
        if size:
            memory.memset_async(0xFF, size)
        return memory

    xp.cuda.set_allocator(allocate)


def count_launches(backend: Any) -> dict[str, int]:
    """A dict that the launches of this library's own kernels are counted in, by name, from now on."""
    counted: dict[str, int] = {}
    kernels = backend._kernels
    launch, ready = (getattr(way, "plain", way) for way in (kernels.launch, kernels.ready))

    def counting(name: str, *arguments: Any, **options: Any) -> None:
        counted[name] = counted.get(name, 0) + 1
        launch(name, *arguments, **options)

    def counting_ready(name: str, *arguments: Any, **options: Any) -> Callable[..., None]:
        made = ready(name, *arguments, **options)

        def launch_ready(*given: float) -> None:
            counted[name] = counted.get(name, 0) + 1
            made(*given)

        return launch_ready

    counting.plain, counting_ready.plain = launch, ready  # type: ignore[attr-defined]
    kernels.launch, kernels.ready = counting, counting_ready
    for kept in ("_attention_kernels", "_weighted", "_lstm_kernels"):  # which keep what they launch by
        backend.__dict__.pop(kept, None)
    return counted


if __name__ == "__main__":
    for check in sys.argv[1:]:
        print(check, compare(check, "float32", poisoned=False))
