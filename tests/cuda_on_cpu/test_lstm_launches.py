"""What a call of the LSTM asks of a device: one launch and the products each way, and no copy."""

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

CALL = """
import numpy as np
from cuda_on_cpu.counts import counts
from attnbackends import get_backend
from attnlayers import functional as F
backend = get_backend("cupy")
N, T, D, H = {sizes}
shapes = (N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,), (N, H), (N, H), (N, T, H)
x, Wx, Wh, b, h, c, dhs = (backend.asarray(np.ones(shape, np.float32)) for shape in shapes)
for states in ({{}}, {{}}, {{"h": h, "c": c}}):  # the first call makes the counts of the stream
    start = counts()
    *_, saved = F.lstm(x, Wx, Wh, b, **states)
    middle = counts()
    F.lstm_backward(saved, dhs, dh=h)
    end = counts()
for after, before in ((middle, start), (end, middle)):
    taken = after - before
    print(taken.launches, taken.products, taken.to_device, taken.to_host, taken.on_device, taken.synchronizations)
"""


@pytest.mark.parametrize("sizes", ["(128, 29, 16, 256)", "(20, 35, 650, 650)", "(1, 50, 8, 64)"])
def test_one_launch_each_way(sizes: str) -> None:
    forward, backward = output_of(CALL.format(sizes=sizes), mode="idle")
    assert forward == "{'lstm_steps': 1} 1 0 0 0 0"
    assert backward == "{'lstm_steps_backward': 1} 2 0 0 0 0"


def test_a_step_takes_a_product_and_a_cell_where_the_device_cannot_hold_the_blocks() -> None:
    forward, backward = output_of(CALL.format(sizes="(3, 5, 4, 1100)"), mode="idle")
    assert forward == "{'lstm_cell': 5} 6 0 0 2 0"
    assert "'lstm_cell_backward': 6" in backward
    assert backward.split("} ")[1].split()[0] == "7"
