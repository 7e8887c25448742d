"""What a call of attention in float32 asks of a device: one launch each way where a kernel serves it, and no copy."""

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

CALL = """
import numpy as np
from cuda_on_cpu.counts import counts
from attnbackends import get_backend
from attnlayers import functional as F
backend = get_backend("cupy")
q, k, v, dout = (backend.asarray(np.ones((2, {T}, 64), np.float32)) for _ in range(4))
start = counts()
out, saved = F.attention(q, k, v)
middle = counts()
F.attention_backward(saved, dout)
end = counts()
for after, before in ((middle, start), (end, middle)):
    taken = after - before
    print(taken.launches, taken.to_device, taken.to_host, taken.on_device, taken.synchronizations)
"""


@pytest.mark.parametrize(("T", "kernel"), [(16, "attention_small"), (200, "attention_tiled")])
def test_one_launch_each_way(T: int, kernel: str) -> None:
    forward, backward = output_of(CALL.format(T=T))
    assert forward == f"{{'{kernel}': 1}} 0 0 0 0"
    assert backward == f"{{'{kernel}_backward': 1}} 0 0 0 0"
