"""What attention by products asks of a device: one kernel each way, products, and no copy."""

import pytest

from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

CALL = """
import numpy as np
from cuda_on_cpu.counts import counts
from attnbackends import get_backend
from attnlayers import functional as F
backend = get_backend("cupy")
B, T_k, D = {shape}
q, k, v, dout = (backend.asarray(np.ones((B, T, D), "{dtype}")) for T in ({T_q}, T_k, T_k, {T_q}))
bias, sinks = (backend.asarray(np.ones(shape, "{dtype}")) for shape in ({shape}[1:2], {shape}[:1]))
F.attention_backward(F.attention(q, k, {v}{options})[-1], dout)  # which finds out what the call needs
start = counts()
out, saved = F.attention(q, k, {v}{options})
middle = counts()
F.attention_backward(saved, dout)
end = counts()
for after, before in ((middle, start), (end, middle)):
    taken = after - before
    print(taken.launches, taken.products, taken.to_device, taken.to_host, taken.on_device, taken.synchronizations)
"""


def asked(
    shape: tuple[int, ...], dtype: str = "float32", v: str = "v", options: str = "", T_q: int | None = None
) -> list[str]:
    return output_of(CALL.format(shape=shape, dtype=dtype, v=v, options=options, T_q=T_q or shape[1]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("options", ["", ", causal=True", ", dropout=0.1, seed=3", ", key_lengths=[100] * 32"])
@pytest.mark.parametrize("v", ["v", "None"])
def test_products_and_one_kernel_between_them(dtype: str, options: str, v: str) -> None:
    """Two products forward and four backward, in half precision too, where nothing is cast."""
    forward, backward = asked((32, 140, 256), dtype, v, options)
    assert forward == "{'attention_weights': 1} 2 0 0 0 0"
    assert backward == "{'attention_weights_backward': 1} 4 0 0 0 0"


def test_a_bias_is_copied_for_its_gradient() -> None:
    forward, _ = asked((32, 140, 256), options=", bias=bias")
    assert forward == "{'attention_weights': 1, 'cupy_copy__float32_float32': 1} 2 0 0 0 0"


def test_capped_scores_are_made_again() -> None:
    forward, backward = asked((32, 140, 256), options=", softcap=5.0")
    assert forward == "{'attention_weights': 1} 2 0 0 0 0"
    assert backward == "{'attention_weights_backward': 1} 5 0 0 0 0"


def test_few_queries_have_a_backward() -> None:
    """Weights, which forward did not keep, are made again."""
    forward, backward = asked((4, 300, 256), "float64", T_q=10)
    assert forward == "{'attention_decode': 1, 'attention_decode_join': 1} 0 0 0 0 0"
    assert backward == "{'attention_weights': 1, 'attention_weights_backward': 1} 6 0 0 0 0"
