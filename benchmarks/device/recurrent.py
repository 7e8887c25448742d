"""The LSTM, forward and with backward: all steps in one launch, step by step, and PyTorch's.

``python -m benchmarks.device.recurrent`` prints a line for each size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import get_backend
from attnbackends._cuda import lstm_grid
from attnlayers import functional as F
from attnlayers.bench.peers import TF32, allow_tf32, load

from .clock import CupyEvents, Events, HostEvents, TorchEvents, times
from .exactness import count_launches
from .results import Entry
from .setting import REHEARSAL, SHORT, on_device
from .table import lstm_line
from .workers import Item, alone

WORKERS = 1

SIZES = ((128, 29, 16, 256), (128, 10, 16, 256), (20, 35, 650, 650)) if not REHEARSAL else ((20, 3, 4, 17),)
"""(N, T, D, H): encoder and decoder of chapter 8, and a language model's."""

WAYS = {"together": 1, "two on a multiprocessor": 2, "step by step": 0}
"""All steps in one launch, with so many blocks on a multiprocessor; 0: a product and a cell for each step."""

SETTINGS = {f"PyTorch, {TF32}": True, "PyTorch, float32": False}


def items(folder: Path) -> Iterator[Item]:
    for size in SIZES:
        for way in ["together"] if SHORT else WAYS:
            yield Item(f"{way}, {size}", ours, (way, size), on_device(15, 300))
    if not SHORT:
        yield Item("PyTorch", apart, (), on_device(20, 300), on_device=not REHEARSAL)


def ours(way: str, size: tuple[int, int, int, int]) -> Entry:
    """Times of one way, and the kernels that it launches."""
    backend = get_backend("cupy")
    launched = count_launches(backend)
    kernels = backend._kernels
    count, capability, together = type(kernels).device_limits(kernels)
    blocks = WAYS[way]
    kernels.device_limits = lambda: (count * max(1, blocks), capability, together and blocks > 0)
    all_rows = lstm_grid.ROWS
    lstm_grid.ROWS = (16, 8) if blocks > 1 else all_rows
    x, Wx, Wh, b, dhs = (backend.asarray(array) for array in draw(size))

    def forward(i: int) -> Any:
        return F.lstm(x, Wx, Wh, b)

    def both(i: int) -> Any:
        return F.lstm_backward(F.lstm(x, Wx, Wh, b)[3], dhs)

    try:
        found = _timed({"forward": forward, "both": both}, CupyEvents(backend.xp))
        launched.clear()
        both(0)
    finally:
        lstm_grid.ROWS = all_rows
        kernels.__dict__.pop("device_limits")
    return found | {"launched": dict(launched)}


def apart() -> Entry:
    return alone(theirs)


def theirs() -> Entry:
    """PyTorch's, which is cuDNN's on a device, by size and setting."""
    torch = load("torch")
    device = "cpu" if REHEARSAL else "cuda"
    events: Events = HostEvents() if REHEARSAL else TorchEvents(torch)
    found: Entry = {}
    for size in SIZES:
        _, _, D, H = size
        for name, tf32 in SETTINGS.items():
            allow_tf32(torch, tf32)
            x, *_, dhs = (torch.from_numpy(array).to(device) for array in draw(size))
            lstm = torch.nn.LSTM(D, H, batch_first=True).to(device)
            leaves = [x.requires_grad_(), *lstm.parameters()]

            def forward(i: int, lstm: Any = lstm, x: Any = x) -> Any:
                return lstm(x)

            def both(i: int, lstm: Any = lstm, leaves: Any = leaves, dhs: Any = dhs) -> Any:
                return torch.autograd.grad(lstm(leaves[0])[0], leaves, dhs)

            found[f"{name}, {size}"] = _timed({"forward": forward, "both": both}, events)
    return {"times": found}


def _timed(calls: dict[str, Callable[[int], Any]], events: Events) -> Entry:
    return {direction: times(call, events) for direction, call in calls.items()}


def draw(size: tuple[int, int, int, int]) -> tuple[np.ndarray, ...]:
    """x, Wx, Wh, b and the gradient of the output."""
    N, T, D, H = size
    rng = np.random.default_rng(0)
    shapes = (N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,), (N, T, H)
    scales = 1.0, D**-0.5, H**-0.5, 0.1, 1.0
    return tuple(
        (scale * rng.standard_normal(shape)).astype(np.float32) for scale, shape in zip(scales, shapes, strict=True)
    )


if __name__ == "__main__":
    for each_size in SIZES:
        for each_way in WAYS:
            print(lstm_line(f"{each_way}, {each_size}", ours(each_way, each_size)), flush=True)
    for each_name, some in apart().get("times", {}).items():
        print(lstm_line(each_name, some))
