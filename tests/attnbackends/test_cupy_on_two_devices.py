"""Two CUDA devices, on the fake one: work is done where the arrays are, whichever device is the current one."""

import textwrap

import pytest
from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

BEGIN = """
from attnbackends import Uniform, get_backend
from attnbackends._errors import BackendError
backend = get_backend("cupy")
rng = np.random.default_rng(0)
here = lambda *shape: backend.asarray(rng.standard_normal(shape).astype(np.float32))
with cupy.cuda.Device(1):
    far = here(1)
there = lambda *shape: backend.asarray(rng.standard_normal(shape).astype(np.float32), like=far)
"""

OPERATIONS = {
    "asarray": "there(3)",
    "empty": "backend.empty((2, 3), like=far)",
    "uniform": "backend.uniform(3, (slice(0, 2), slice(0, 3), slice(0, 9)), 3, 9, like=far)",
    "Uniform": "Uniform(backend, 3)((2, 5), far)",
    "matmul of two": "backend.matmul(there(3, 4), there(4, 5))",
    "matmul of stacks": "backend.matmul(there(2, 3, 4), there(2, 5, 4).mT)",
    "vecdot": "backend.vecdot(there(3, 4), there(3, 4))",
    "softmax": "backend.softmax(there(3, 4))",
    "softmax, masked": "backend.softmax(there(3, 4), backend.asarray(np.ones((3, 4), bool), like=far))",
    "apply": "backend.apply(cupy.exp, there(3))",
    "clip_norm": "backend.clip_norm([there(3)], 1.0)",
    "pack_keys": "backend.pack_keys(there(2, 3, 4), ones=True).scores(there(2, 5, 5), slice(0, 2), 1)",
    "take_rows": "backend.take_rows(there(3, 4), backend.asarray([0, 1], like=far), 'ids', '')",
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """The device of each operation's result, while the other device is the current one."""
    calls = "".join(
        f"print({name!r}, ({code}).device.id, runtime.getDevice(), sep='|')\n" for name, code in OPERATIONS.items()
    )
    lines = output_of(BEGIN + calls, devices=2)
    return {name: f"{device} {current}" for name, device, current in (line.split("|") for line in lines)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_done_where_its_arrays_are(found: dict[str, str], name: str) -> None:
    assert found[name] == "1 0"


def test_attention_and_steps_write_where_their_arrays_are() -> None:
    code = """
    from attnlayers import functional as F
    q, k, v, dout = (rng.standard_normal((2, 40, 16)).astype(np.float32) for _ in range(4))
    results = []
    for device in (0, 1):
        with cupy.cuda.Device(device):
            arrays = [backend.asarray(x) for x in (q, k, v, dout)]
            out, saved = F.attention(*arrays[:3])
            results.append([backend.to_numpy(x) for x in (out, *F.attention_backward(saved, arrays[3]))])
            assert {x.device.id for x in (out, *F.attention_backward(saved, arrays[3]))} == {device}
    print(all(np.array_equal(a, b) for a, b in zip(*results)))
    param, grad, m, v = there(5), there(5), cupy_zeros(5), cupy_zeros(5)
    backend.adam_step([param], [grad], [m], [v], 0.1, 0.9, 0.999)
    print(bool(np.all(backend.to_numpy(v) > 0)))
    """
    zeros = "cupy_zeros = lambda n: backend.asarray(np.zeros(n, np.float32), like=far)\n"
    assert output_of(BEGIN + zeros + textwrap.dedent(code), devices=2) == ["True", "True"]


def test_a_call_on_another_device_than_the_current_one_is_refused() -> None:
    code = """
    from attnlayers import Softmax
    try:
        Softmax().forward(there(3, 4))
    except BackendError as error:
        print(error)
    """
    (line,) = output_of(BEGIN + textwrap.dedent(code), devices=2)
    assert line == (
        "the arrays live on CUDA device 1, and the current one is 0, where CuPy would compute: "
        "call within `with cupy.cuda.Device(1):`"
    )
