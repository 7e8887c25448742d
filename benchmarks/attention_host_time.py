"""Host time of attention on CUDA, beside the least that CuPy itself takes for it: paired, in one process.

On a device, or without one on the CPU that stands in for it, where kernels do nothing::

    python -m benchmarks.attention_host_time
    CUDA_ON_CPU_MODE=idle python tests/cuda_on_cpu/run.py -m benchmarks.attention_host_time

The floor of a case is what CuPy takes to allocate the results of forward and backward, and to launch two prepared
kernels with twenty arguments each. Each line has microseconds of the processor (medians), and medians of paired ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from attnbackends import get_backend
from attnlayers import TimeAttention
from attnlayers import functional as F

ROUNDS, CALLS = 60, 15
"""Calls of a round are few enough to fit in the queue of a device, so that the host does not wait."""

KERNEL = """extern "C" __global__ void nothing(
    float *a, float *b, float *c, float *d, float *e, float *f, float *g, int h, int i, int j, int k, int l, int m,
    long long n, long long o, long long p, int q, int r, int s, float t) {}"""


class Case(NamedTuple):
    """Shapes and options of a case; `layer`: TimeAttention, whose keys are its values."""

    N: int
    T_q: int
    T_k: int
    D: int
    layer: bool = False
    dtype: str = "float32"
    causal: bool = False
    lengths: bool = False
    mask: bool = False


CASES = {
    "book": Case(128, 10, 29, 256, layer=True),
    "mid": Case(32, 64, 64, 64, layer=True),
    "long": Case(16, 1024, 1024, 64, layer=True),
    "long, values": Case(16, 1024, 1024, 64),
    "causal": Case(8, 2048, 2048, 64, causal=True),
    "lengths": Case(16, 1024, 1024, 64, lengths=True),
    "mask": Case(16, 1024, 1024, 64, mask=True),
    "float16": Case(16, 1024, 1024, 64, dtype="float16"),
}


def functions(case: Case) -> dict[str, Callable[[], Any]]:
    """What is timed: the floor, forward, and forward and backward."""
    xp = get_backend("cupy").xp
    query, key = (case.N, case.T_q, case.D), (case.N, case.T_k, case.D)
    q, k, v, dout = (xp.zeros(shape, dtype=case.dtype) for shape in (query, key, key, query))
    kernel, one = xp.RawKernel(KERNEL, "nothing"), np.int32(1)
    pointers, longs = (xp.zeros(1, dtype=np.float32),) * 7, (np.int64(1),) * 3
    arguments = (*pointers, *(one,) * 6, *longs, one, one, one, np.float32(1))
    results = [query, (2, case.N, case.T_q, 1), query, key] + [key] * (not case.layer)
    options: dict[str, Any] = {"causal": True} if case.causal else {}
    options |= {"key_lengths": [case.T_k] * case.N} if case.lengths else {}
    options |= {"mask": xp.ones((case.N, 1, case.T_k), dtype=bool)} if case.mask else {}
    layer = TimeAttention()

    def floor() -> None:
        for shape in results:
            xp.empty(shape, dtype=q.dtype)
        for _ in range(2):
            kernel((1,), (32,), arguments)

    def both_of_layer() -> None:
        layer.forward(k, q)
        layer.backward(dout)

    def both() -> None:
        F.attention_backward(F.attention(q, k, v, **options)[-1], dout)

    if case.layer:
        return {"floor": floor, "forward": partial(layer.forward, k, q), "both": both_of_layer}
    return {"floor": floor, "forward": partial(F.attention, q, k, v, **options), "both": both}


def measured(case: Case) -> np.ndarray:
    """Microseconds of one call, (ROUNDS, 3)."""
    synchronize = get_backend("cupy").synchronize
    timed = list(functions(case).values())
    found = np.empty((ROUNDS + 1, len(timed)))
    for row in found:
        for i, function in enumerate(timed):
            begin = process_time()
            for _ in range(CALLS):
                function()
            row[i] = 1e6 * (process_time() - begin) / CALLS
            synchronize()
    return found[1:]  # the first round compiles


def main() -> None:
    print(f"{'case':14}{'floor':>8}{'forward':>9}{'both':>8}{'forward / floor':>18}{'both / floor':>14}")
    for name, case in CASES.items():
        found = measured(case)
        times, ratios = np.median(found, axis=0), np.median(found[:, 1:] / found[:, :1], axis=0)
        print(f"{name:14}{times[0]:8.1f}{times[1]:9.1f}{times[2]:8.1f}{ratios[0]:18.2f}{ratios[1]:14.2f}", flush=True)


if __name__ == "__main__":
    main()
