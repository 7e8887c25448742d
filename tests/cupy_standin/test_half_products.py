"""Products in half precision on the stand-in: our arguments to cuBLAS are right, and nothing is cast up or copied."""

import pytest
from support import run_on_standin

BEGIN = """
import sys
import numpy as np
import ml_dtypes
import cupy
from cupy import counts
from attnbackends import get_backend
backend = get_backend("cupy")
dtype = np.dtype({"bfloat16": ml_dtypes.bfloat16}.get(sys.argv[1], sys.argv[1]))
rng = np.random.default_rng(0)
def new(*shape):
    return cupy.asarray(rng.standard_normal(shape).astype(dtype))
def exact(x):
    return x.get().astype(np.float64)
"""

PRODUCTS = """
def turned(*shape):
    return cupy.matrix_transpose(new(*shape[:-2], shape[-1], shape[-2]))
def heads(N, H, T, D):
    return cupy.permute_dims(new(N, T, H, D), (0, 2, 1, 3))
pairs = {
    "plain": (new(3, 5), new(5, 7)), "turned": (turned(3, 5), turned(5, 7)), "part": (new(3, 11)[:, 2:7], new(5, 7)),
    "row": (new(1, 5), turned(5, 7)), "column": (turned(3, 5), new(5, 1)), "one": (new(3, 1), turned(1, 7)),
    "stack": (new(2, 3, 5), turned(2, 5, 7)), "broadcast": (turned(3, 5), new(2, 5, 7)),
    "heads": (heads(2, 3, 5, 7), cupy.matrix_transpose(heads(2, 3, 11, 7))),
    "crossed": (new(2, 1, 3, 5), turned(1, 11, 5, 7)), "every other": (new(3, 10)[:, ::2], new(5, 7)),
}
half = dtype.itemsize == 2
for name, (a, b) in pairs.items():
    counts.by_name.clear()
    product = backend.matmul(a, b)
    launched = dict(counts.by_name)
    wanted = exact(a) @ exact(b)
    assert product.dtype == (np.float32 if half else dtype), name
    assert np.abs(product.get() - wanted).max() < (1e-14 if dtype == np.float64 else 1e-5), name
    copies = {"ascontiguousarray"} if name == "every other" else set()
    assert not launched.get("astype") and not launched.get("copy for matmul"), (name, launched)
    if half:
        assert set(launched) == {"gemm"} | copies, (name, launched)
        narrow = backend.matmul(a, b, dtype=dtype)
        assert narrow.dtype == dtype and (narrow.get() == product.get().astype(dtype)).all(), name
    room = cupy.zeros(wanted.shape + (2,), dtype=product.dtype)[..., 0]
    assert backend.matmul(a, b, out=room) is room
    assert np.abs(room.get() - wanted).max() < 1e-5, name
assert cupy.cuda.cublas.getMathMode(7) == 0
print("done")
"""

AFFINE = """
from attnlayers.functional import affine, affine_backward
x, W, b, dout = new(2, 3, 5), new(5, 7), new(7), new(2, 3, 7)
backend.operand(x)
counts.by_name.clear()
out, saved = affine(x, W, b)
assert counts.by_name == {"gemm": 1, "add": 1, "astype": 1}, counts.by_name  # the one cast is down
counts.by_name.clear()
gradients = affine_backward(saved, dout)
assert counts.by_name.get("gemm") == 3 and counts.by_name.get("astype") == 1, counts.by_name  # down: the bias
def plain(x, W, b, dout):
    rows, d = x.reshape(-1, 5), dout.reshape(-1, 7)
    return [(rows @ W + b).reshape(2, 3, 7), (d @ W.T).reshape(x.shape), rows.T @ d, d.sum(axis=0)]
arrays = [x, W, b, dout]
wanted, rough = plain(*map(exact, arrays)), plain(*(array.get() for array in arrays))
for ours, right, other in zip((out, *gradients), wanted, rough):
    assert ours.dtype == dtype
    allowed = np.abs(other.astype(float) - right).max() + float(ml_dtypes.finfo(dtype).eps) * np.abs(right).max()
    assert np.abs(exact(ours) - right).max() <= 2 * allowed
print("done")
"""


def run(code: str, dtype: str) -> str:
    return run_on_standin(BEGIN + code, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_products(dtype: str) -> None:
    assert run(PRODUCTS, dtype) == "done"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_affine(dtype: str) -> None:
    assert run(AFFINE, dtype) == "done"
