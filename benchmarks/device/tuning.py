"""What tuning needs: where the small kernel gives way to tiles and tiles to products, what a launch costs, and the
machine's ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import get_backend
from attnbackends._cuda.attention import SmallKernel, TiledKernel
from attnbackends._cuda.call import CudaCall
from attnbackends._cuda.plans import CudaAttention
from attnbackends._cuda.tiles import Tile
from attnlayers import functional as F
from attnlayers.bench.peers import allow_tf32, load

from .clock import CupyEvents, Events, HostEvents, TorchEvents, times
from .exactness import count_launches
from .results import Entry
from .setting import REHEARSAL, SHORT, on_device
from .workers import Item, alone

WORKERS = 1

LENGTHS = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256) if not SHORT else (16,)
HEADS = on_device(128, 2)
"""Entries: about one for each multiprocessor."""

HEAD_SIZES = (64, 128) if not SHORT else (64,)
COPIED = on_device(2**30, 2**16)
"""Bytes."""

SIDE = on_device(8192, 32)
"""Rows of the matrices whose product tells the ceiling."""

PRODUCTS = (("float32", False), ("float32", True), ("bfloat16", False), ("float16", False))
"""dtype, and whether TF32 is allowed."""


class TilesAlone(CudaAttention):
    """The kernels without the one for short sequences."""

    KERNELS = (TiledKernel,)


class SmallAlone(CudaAttention):
    """The kernel for short sequences and no other."""

    KERNELS = (SmallKernel,)


class NoKernel(CudaAttention):
    """None of the kernels that hold no weights: products have the call."""

    KERNELS = ()


def tiles_of(*size: Any) -> type[CudaAttention]:
    """The tiled kernels with one tile, as `Tile` is told after the width, where shared memory holds it."""

    class OneTile(TiledKernel):
        def tile(self, call: CudaCall, backward: bool) -> Tile | None:
            tile = Tile(-(-max(call.q.shape[2], call.v.shape[2]) // 64) * 64, *size)
            return tile if tile.bytes(backward) <= self._kernels.shared_limit() else None

    class OneTileAlone(CudaAttention):
        KERNELS = (OneTile,)

    return OneTileAlone


WAYS = {"small": SmallAlone, "tiles": TilesAlone, "products": NoKernel, "blocks": NoKernel}
"""By name; `TilesAlone` chooses its tile as the library does; "blocks" is the way that is written for any library."""

OPTIONS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.1, "seed": 1},
    "softcap and sinks": {"softcap": 30.0, "sinks": 0.5},
    "bias": {"bias": 0.5},
}
"""Options that are measured, a number being that of each row, or of each row and key."""

WITH_OPTIONS = ((16, 1024, 64), (8, 512, 128)) if not REHEARSAL else ((2, 40, 16),)
"""Entries, lengths and head sizes of which tiles, products and blocks are measured with these."""

BESIDE_PRODUCTS = ((16, 256), (4, 1024), (8, 1024)) if not REHEARSAL else ((2, 40),)
"""Entries and lengths of which tiles and products are measured: 64, 64 and 128 blocks of the tiled kernels."""

WIDER = (*HEAD_SIZES, 256) if not SHORT else HEAD_SIZES

PLAIN = 64, 64, 1, 2, 4, False
"""The largest tile without matrix units, to see what they gain."""

SIZES: dict[int, tuple[tuple[Any, ...], ...]] = {
    64: (PLAIN, (64, 64), (64, 32), (64, 64, 1, 3)),
    128: (PLAIN, (64, 16), (64, 32, 1, 2, 2)),
    256: ((32, 16, 1, 2, 2),),
}
if SHORT:
    SIZES = {64: ((32, 16),)}
"""Tiles that are measured for each head size."""

SHAPES = {"long": on_device(16, 1), "few": on_device(4, 1)}
"""Entries of a length of 1024: more tiles than multiprocessors, and fewer."""


def items(folder: Path) -> Iterator[Item]:
    seconds = on_device(20, 300)
    yield Item("empty launch", empty_launch, (), seconds)
    yield Item("copy", copy, (), seconds)
    yield Item("product, float32, CuPy", product, (), seconds)
    yield Item("products, PyTorch", apart, (), on_device(40, 300), on_device=not REHEARSAL)
    for D in HEAD_SIZES:
        for T in LENGTHS:
            for way in ("small", "tiles"):
                yield Item(f"{way}, T={T}, D={D}", attention, (way, (HEADS, T, D)), seconds)
    for D in WIDER:
        for B, T in BESIDE_PRODUCTS:
            for way in ("tiles", "products"):
                yield Item(f"{way}, B={B}, T={T}, D={D}", attention, (way, (B, T, D)), seconds)
    for shape in WITH_OPTIONS:
        for options in OPTIONS:
            for way in ("tiles", "products", "blocks"):
                title = "{}, {}, B={}, T={}, D={}".format(way, options, *shape)
                yield Item(title, attention, (way, shape, options), seconds)
    for D, sizes in SIZES.items():
        for size in sizes:
            for name, entries in SHAPES.items():
                shape = entries, on_device(1024, 40), D
                title = f"tile {' '.join(map(str, size))}, {name}, D={D}"
                yield Item(title, attention, (size, shape), on_device(60, 300))  # most of it is NVRTC


def empty_launch() -> Entry:
    """A kernel that does nothing: what a launch costs the host and the device; through CuPy, and through ours."""
    xp = get_backend("cupy").xp
    kernel = xp.RawKernel('extern "C" __global__ void nothing(float *x) {}', "nothing")
    x, events = xp.zeros(1, dtype=xp.float32), CupyEvents(xp)
    row = xp.zeros((1, 4), dtype=xp.float32)
    softmax = get_backend("cupy").softmax
    return {
        "RawKernel": times(lambda i: kernel((1,), (32,), (x,)), events),
        "element by element": times(lambda i: xp.add(x, x, out=x), events),
        "softmax_rows of one row": times(lambda i: softmax(row), events),
    }


def copy() -> Entry:
    """Bytes read and written a second by a copy on the device."""
    xp = get_backend("cupy").xp
    source, target = (xp.zeros(COPIED // 4, dtype=xp.float32) for _ in range(2))
    source[...] = xp.arange(COPIED // 4, dtype=xp.float32)
    found = times(lambda i: target.data.copy_from_device_async(source.data, COPIED), CupyEvents(xp), calls=4)
    return {**found, "GB_per_s": rate(2 * COPIED, found, 1e9)}


def product() -> Entry:
    """float32 through the backend's own product: `CUPY_TF32` is not set."""
    backend = get_backend("cupy")
    a, b = (backend.asarray(_draw(seed)) for seed in (0, 1))
    out = backend.empty((SIDE, SIDE), like=a)
    found = times(lambda i: backend.matmul(a, b, out=out), CupyEvents(backend.xp), calls=4)
    return {**found, "Tflop_per_s": rate(2 * SIDE**3, found, 1e12)}


def apart() -> Entry:
    return alone(torch_products)


def torch_products() -> Entry:
    """The same by PyTorch, in each dtype and in TF32."""
    torch = load("torch")
    device = "cpu" if REHEARSAL else "cuda"
    events: Events = HostEvents() if REHEARSAL else TorchEvents(torch)
    rates: Entry = {}
    for dtype, tf32 in PRODUCTS:
        allow_tf32(torch, tf32)
        a, b = (torch.from_numpy(_draw(seed)).to(device, getattr(torch, dtype)) for seed in (0, 1))
        found = times(partial(_product_of, torch, a, b), events, calls=4)
        rates["TF32" if tf32 else dtype] = {**found, "Tflop_per_s": rate(2 * SIDE**3, found, 1e12)}
    return {"rates": rates}


def _product_of(torch: Any, a: Any, b: Any, i: int) -> Any:
    return torch.mm(a, b)


def attention(way: str | tuple[Any, ...], shape: tuple[int, int, int], options: str | None = None) -> Entry:
    """Attention on arrays (entries, T, D) by one way alone, by name or by its tile, forward and with backward.

    `options` are of `OPTIONS`.
    """
    backend = get_backend("cupy")
    rng = np.random.default_rng(0)
    q, k, v, dout = (backend.asarray(rng.standard_normal(shape, dtype=np.float32)) for _ in range(4))
    launched = count_launches(backend)
    kernels = WAYS[way] if isinstance(way, str) else tiles_of(*way)
    backend.__dict__["_attention_kernels"] = kernels(backend._kernels)
    if way != "products":
        backend.__dict__["_weighted"] = None
    B, T, _ = shape
    sizes = {"bias": (B, T, T), "sinks": (B,)}
    given = {
        name: backend.asarray(np.full(sizes[name], x, dtype=np.float32)) if name in sizes else x
        for name, x in OPTIONS.get(options or "", {}).items()
    }
    given["keep_bytes"] = 0 if way == "blocks" else 2**40

    def forward(i: int) -> Any:
        return F.attention(q, k, v, **given)

    def both(i: int) -> Any:
        return F.attention_backward(forward(i)[1], dout)

    events = CupyEvents(backend.xp)
    calls: dict[str, Callable[[int], Any]] = {"forward": forward, "both": both}
    wanted = {"small": "attention_small", "products": "attention_weights"}.get(str(way), "attention_tiled")
    none = {wanted, f"{wanted}_backward"} if way == "blocks" else set()
    found: Entry = {}
    for direction, call in calls.items():
        launched.clear()
        call(0)
        names = {name for name in launched if name.startswith("attention")}
        right = names == ({wanted} if direction == "forward" else {wanted, f"{wanted}_backward"}) - none
        found[direction] = times(call, events) if right else {"left_out": f"launches {sorted(names)} instead"}
    return found


def rate(amount: float, found: dict[str, float], unit: float) -> float:
    """`amount` over the time on the device, in a unit."""
    return round(amount / (1e-6 * max(found["device_us"], 1e-3)) / unit, 2)


def _draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIDE, SIDE), dtype=np.float32)
