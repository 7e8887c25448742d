"""Every layer by itself, on the array library that the environment chose: pytest benchmarks/

``ATTN_GPU=1 pytest benchmarks/ --benchmark-json FILE`` does the same on CUDA, waiting for the device each time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attnbackends import backend
from attnlayers import (
    Attention,
    TimeAffine,
    TimeAttention,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    TimeSoftmaxWithLoss,
)

N, T_DEC, T_ENC, H, D, V = 128, 10, 29, 256, 16, 59
"""The shapes of the book's chapter 8."""

rng = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return backend.asarray((rng.standard_normal(shape) / 4).astype(np.float32))


def ids(*shape: int) -> Any:
    return backend.asarray(rng.integers(0, V, shape))


CASES: dict[str, Callable[[], tuple[Any, tuple[Any, ...], tuple[Any, ...]]]] = {
    "Attention": lambda: (Attention(), (draw(N, T_ENC, H), draw(N, H)), (draw(N, H),)),
    "TimeAttention": lambda: (TimeAttention(), (draw(N, T_ENC, H), draw(N, T_DEC, H)), (draw(N, T_DEC, H),)),
    "TimeEmbedding": lambda: (TimeEmbedding(draw(V, D)), (ids(N, T_ENC),), (draw(N, T_ENC, D),)),
    "TimeLSTM": lambda: (
        TimeLSTM(draw(D, 4 * H), draw(H, 4 * H), draw(4 * H)),
        (draw(N, T_ENC, D),),
        (draw(N, T_ENC, H),),
    ),
    "TimeAffine": lambda: (TimeAffine(draw(2 * H, V), draw(V)), (draw(N, T_DEC, 2 * H),), (draw(N, T_DEC, V),)),
    "TimeSoftmaxWithLoss": lambda: (TimeSoftmaxWithLoss(), (draw(N, T_DEC, V), ids(N, T_DEC)), ()),
    "TimeDropout": lambda: (TimeDropout(), (draw(N, T_ENC, H),), (draw(N, T_ENC, H),)),
}


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("name", CASES)
def test_layer(benchmark: Any, name: str, way: str) -> None:
    layer, inputs, douts = CASES[name]()
    out = layer.forward(*inputs)

    def call() -> Any:
        result = layer.forward(*inputs) if way == "forward" else layer.backward(*douts)
        backend.synchronize()
        return result

    benchmark.group = f"{name}, {backend.name}"
    benchmark.extra_info.update(backend.machine.describe())
    benchmark(call)
    assert backend.to_numpy(out).shape == backend.to_numpy(layer.forward(*inputs)).shape
