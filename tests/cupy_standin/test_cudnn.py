"""Which calls go to cuDNN, and where they go otherwise."""

from support import run_on_standin

BEGIN = """
import sys
import cudnn
import cupy
import numpy as np
from cupy import counts
from attnbackends import get_backend
from attnlayers import functional as F
rng = np.random.default_rng(0)
def new(*shape):
    return cupy.asarray(rng.standard_normal(shape).astype(np.float16))
def wide(x):
    return x.get().astype(np.float64)
def ways():
    counts.by_name.clear()
    took, cudnn.calls[:] = [call for call in cudnn.calls if call != "handle"], []
    return took
def close(found, *right):
    for a, b in zip(found, right, strict=True):
        assert np.abs(wide(a) - b).max() < 5e-3
q, k, v, dout = new(2, 5, 8), new(2, 7, 8), new(2, 7, 16), new(2, 5, 16)
"""

OTHERWISE = """
from attnbackends._cudnn import Band
backend = get_backend("cupy")
def forward(q=q, k=k, v=v, **options):
    ways()
    F.attention(q, k, v, **options)
    by_products = counts.by_name.get("gemm", 0) > 0
    return ways(), by_products
taken, given_up = (["build sdpa", "sdpa"], False), ([], True)
assert forward() == taken
assert forward() == (["sdpa"], False)
assert forward(scale=0.5) == taken
assert forward(mask=cupy.ones((5, 7), dtype=bool)) == given_up
assert forward(key_lengths=[3, 4]) == given_up
assert forward(causal=True, query_start=1) == given_up
assert forward(causal=True, query_start=[0, 2]) == given_up
assert forward(q=new(2, 11, 8), window=(2, 0), query_start="start") == given_up
assert forward(q=new(2, 11, 8), causal=True, query_start="end") == given_up
assert forward(q=new(2, 11, 8), causal=True, query_start="start") == taken
assert forward(q=new(2, 5, 11), k=new(2, 7, 11)) == given_up
assert forward(q=q.astype("f4"), k=k.astype("f4"), v=v.astype("f4"))[0] == []
assert backend.refusals() == {}
cudnn.refuse.add("sdpa")
assert forward(scale=0.25) == (["build sdpa"], True)
assert forward(scale=0.25) == given_up
((call, reason),) = backend.refusals().items()
assert call == f"cuDNN, forward in float16, queries (2, 1, 5, 8), keys (2, 1, 7, 8), {Band(None, None, False)}", call
assert reason == "cudnnGraphNotSupportedError: sdpa", reason
print("done")
"""

BACKWARD = """
right_out, saved = F.attention(*map(wide, (q, k, v)))
right = F.attention_backward(saved, wide(dout))
out, saved = F.attention(q, k, v)
close([out, *F.attention_backward(saved, dout)], right_out, *right)
assert ways() == ["build sdpa", "sdpa", "build sdpa_backward", "sdpa_backward"]
# A gradient of the log-sum-exp: products go on from what cuDNN wrote.
dlse = rng.standard_normal((2, 5)).astype(np.float16)
_, exact = F.attention(*map(wide, (q, k, v)))
with_lse = F.attention_backward(exact, wide(dout), dlse=dlse.astype(float))
_, saved = F.attention(q, k, v)
close(F.attention_backward(saved, dout, dlse=cupy.asarray(dlse)), *with_lse)
assert counts.by_name["gemm"] == 5 and ways() == ["sdpa"]
# Refused once, not asked again.
cudnn.refuse.add("sdpa_backward")
for asked in (["build sdpa_backward"], []):
    _, saved = F.attention(q, k, v, scale=8**-0.5 * (1 + 1e-9))
    close(F.attention_backward(saved, dout), *right)
    assert [way for way in ways() if way != "build sdpa"] == ["sdpa", *asked]
one = [new(2, 1, size) for size in (8, 8, 16)]
_, saved = F.attention(*one)
F.attention_backward(saved, new(2, 1, 16))
assert ways() == ["build sdpa", "sdpa"]
print("done")
"""

LAYOUTS = """
def odd(x):
    # The same numbers, not aligned.
    room = cupy.asarray(np.zeros((*x.shape[:-1], x.shape[-1] + 3), dtype=np.float16))
    room[..., 1:-2] = x
    return room[..., 1:-2]
def spread(x):
    room = cupy.asarray(np.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=np.float16))
    room[..., : x.shape[-1]] = x
    return room[..., : x.shape[-1]]
right_out, saved = F.attention(*map(wide, (q, k, v)))
right = F.attention_backward(saved, wide(dout))
for change, copies in ((spread, 0), (odd, 7), (cupy.asfortranarray, 7)):  # q, k, v, and all four in backward
    args = [change(x) for x in (q, k, v, dout)]
    ways()
    out, saved = F.attention(*args[:3])
    found = F.attention_backward(saved, args[3])
    assert counts.by_name.get("array", 0) == copies, counts.by_name
    assert [way for way in ways() if "build" not in way] == ["sdpa", "sdpa_backward"]
    close([out, *found], right_out, *right)
print("done")
"""

DESCRIBED = """
backend = get_backend("cupy")
assert backend.trial() == {"cuDNN": "frontend 1.32.0, takes float16"}
cudnn.refuse.add("sdpa_backward")
backend._cudnn._graphs.clear()
assert backend.trial()["cuDNN"].startswith("frontend 1.32.0, refuses float16: cudnnGraphNotSupportedError: ")
cudnn.calls.clear()
assert backend.describe()["cuDNN"] == "frontend 1.32.0"
del backend._cudnn_or_reason
sys.modules["cudnn"] = None
assert backend.refusals() == {}, "not asked so far"
for told in (backend.describe(), backend.refusals()):
    assert told["cuDNN"].startswith("not used (ModuleNotFoundError: import of cudnn halted"), told
    assert "install attnlayers[cudnn12] or attnlayers[cudnn13]" in told["cuDNN"]
assert backend.trial() == {}
F.attention(q, k, v)
assert counts.by_name["gemm"] == 2 and not cudnn.calls
print("done")
"""


def test_calls_that_go_elsewhere() -> None:
    assert run_on_standin(BEGIN + OTHERWISE) == "done"


def test_backward() -> None:
    assert run_on_standin(BEGIN + BACKWARD) == "done"


def test_arrays_that_are_not_dense() -> None:
    assert run_on_standin(BEGIN + LAYOUTS) == "done"


def test_described() -> None:
    assert run_on_standin(BEGIN + DESCRIBED) == "done"
