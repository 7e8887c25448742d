"""What a call of attention asks of a device: one launch each way where a kernel serves it, or two, and no copy."""

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

CALL = """
import numpy as np
from cuda_on_cpu.counts import counts
from attnbackends import get_backend
from attnlayers import functional as F
backend = get_backend("cupy")
q, k, v, dout = (backend.asarray(np.ones(({N}, {T}, 64), np.float32)) for _ in range(4))
start = counts()
out, saved = F.attention(q, k, v)
middle = counts()
F.attention_backward(saved, dout)
end = counts()
for after, before in ((middle, start), (end, middle)):
    taken = after - before
    print(taken.launches, taken.to_device, taken.to_host, taken.on_device, taken.synchronizations)
"""


@pytest.mark.parametrize(("N", "T", "kernel"), [(2, 16, "attention_small"), (40, 200, "attention_tiled")])
def test_one_launch_each_way(N: int, T: int, kernel: str) -> None:
    forward, backward = output_of(CALL.format(N=N, T=T))
    assert forward == f"{{'{kernel}': 1}} 0 0 0 0"
    assert backward == f"{{'{kernel}_backward': 1}} 0 0 0 0"


OPTIONS = """
import numpy as np
from cuda_on_cpu.counts import counts
from attnbackends import get_backend
from attnlayers import functional as F
backend = get_backend("cupy")
q, k, v, dout = (backend.asarray(np.ones((2, T, 64), np.{dtype})) for T in ({T_q}, {T_k}, {T_k}, {T_q}))
row, sink = backend.asarray(np.ones({T_k}, np.{dtype})), backend.asarray(np.ones(2, np.{dtype}))
for option in ({{}}, {{"softcap": 2.0}}, {{"dropout": 0.5, "seed": 3}}, {{"bias": row}}, {{"sinks": sink}}):
    start = counts()
    out, saved = F.attention(q, k, v, **option)
    middle = counts()
    F.attention_backward(saved, dout)
    end = counts()
    for after, before in ((middle, start), (end, middle)):
        taken = after - before
        ours = {{name: n for name, n in taken.launches.items() if name.startswith("attention")}}
        rest = taken.all_launches - sum(ours.values()) + taken.on_device
        print(list(option), ours, rest, taken.to_device + taken.to_host + taken.synchronizations)
"""

COPIES = {"bias": 1, "sinks": 1}
"""What a call keeps for backward of what came with it."""


def test_options_in_the_small_kernel() -> None:
    lines = iter(output_of(OPTIONS.format(dtype="float32", T_q=16, T_k=16)))
    for names in ([], ["softcap"], ["dropout", "seed"], ["bias"], ["sinks"]):
        copies = COPIES.get(names[0], 0) if names else 0
        assert next(lines) == f"{names} {{'attention_small': 1}} {copies} 0"
        assert next(lines) == f"{names} {{'attention_small_backward': 1}} 0 0"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_few_queries_take_two_launches(dtype: str) -> None:
    lines = output_of(OPTIONS.format(dtype=dtype, T_q=1, T_k=2000))
    for line, names in zip(lines[::2], ([], ["softcap"], ["dropout", "seed"], ["bias"], ["sinks"]), strict=True):
        copies = int(dtype == "float16") if names == ["sinks"] else int(names == ["bias"])  # sinks are widened
        assert line == f"{names} {{'attention_decode': 1, 'attention_decode_join': 1}} {copies} 0"
