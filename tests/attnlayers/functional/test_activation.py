"""relu, gelu and swiglu."""

import math

import numpy as np
import pytest
from pairs import Pair
from support import Draw, Library

from attnlayers import functional as F
from attnlayers import gradcheck

SHAPE = (2, 3, 5)
WIDE = np.concatenate([np.linspace(-40, 40, 801), np.linspace(-1e-3, 1e-3, 11), [-1e4, 1e4]])


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 2e-15), ("float32", 2e-6)])
def test_gelu_is_x_times_a_probability(library: Library, dtype: str, rtol: float) -> None:
    x = WIDE.astype(dtype).astype(np.float64)
    expected = np.array([value * phi(value) for value in x])
    found = library.numpy(F.gelu(library.array(WIDE, dtype))[0])
    assert found.dtype == dtype
    # Far out on the left the exponent has lost digits of its own: x * x is rounded.
    small = np.abs(x) < 6
    np.testing.assert_allclose(found[small], expected[small], rtol=10 * rtol, atol=1e-30)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def test_gelu_by_tanh_is_close_to_it(library: Library) -> None:
    x = library.array(np.linspace(-5, 5, 101))
    exact, near = (library.numpy(F.gelu(x, approximate=kind)[0]) for kind in (False, True))
    np.testing.assert_allclose(near, exact, atol=5e-4)
    assert np.max(np.abs(near - exact)) > 1e-5


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_that_of_torch(approximate: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.random.default_rng(0).standard_normal(SHAPE)
    leaf = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.functional.gelu(leaf, approximate="tanh" if approximate else "none")
    theirs.sum().backward()
    out, saved = F.gelu(x, approximate=approximate)
    np.testing.assert_allclose(out, theirs.detach().numpy(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(F.gelu_backward(saved, np.ones_like(x)), leaf.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_swiglu_by_hand(library: Library) -> None:
    out, _ = F.swiglu(library.array([1.0, -2.0, 1e4, -1e4]), library.array([3.0, 5.0, 2.0, 2.0]))
    expected = [3 / (1 + math.exp(-1)), -10 / (1 + math.exp(2)), 2e4, 0.0]
    np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-14, atol=1e-12)


def test_relu_by_hand(library: Library) -> None:
    out, saved = F.relu(library.array([-1.0, 0.0, 2.0]))
    assert library.numpy(out).tolist() == [0, 0, 2]
    assert library.numpy(F.relu_backward(saved, library.array([3.0, 5.0, 7.0]))).tolist() == [0, 0, 7]


@pytest.mark.parametrize(
    ("pair", "count"),
    [
        (Pair(F.relu, F.relu_backward), 1),
        (Pair(F.gelu, F.gelu_backward), 1),
        (Pair(F.gelu, F.gelu_backward, approximate=True), 1),
        (Pair(F.swiglu, F.swiglu_backward), 2),
    ],
)
def test_gradients(library: Library, pair: Pair, count: int) -> None:
    draw = Draw(library)
    gradcheck(pair, *(draw(*SHAPE) for _ in range(count)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ["relu", "gelu", "swiglu"])
def test_dtype_in_is_dtype_out(library: Library, name: str, dtype: str) -> None:
    if not hasattr(library.xp, dtype):
        pytest.skip(f"{library.backend.name} has no {dtype}")
    draw = Draw(library, dtype)
    inputs = [draw(*SHAPE) for _ in range(1 + (name == "swiglu"))]
    out, saved = getattr(F, name)(*inputs)
    gradients = getattr(F, f"{name}_backward")(saved, draw(*SHAPE))
    for array in (out, *(gradients if isinstance(gradients, tuple) else (gradients,))):
        assert array.dtype == inputs[0].dtype
        assert tuple(array.shape) == SHAPE


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`x` must have shape .* to go with gate \(3,\), got \(2,\)"):
        F.swiglu(np.ones(3), np.ones(2))
    _, saved = F.gelu(np.ones(3))
    with pytest.raises(ValueError, match=r"`dout` must have the shape of the output, \(3,\), got \(2,\)"):
        F.gelu_backward(saved, np.ones(2))
    with pytest.raises(TypeError, match="`x` must be floating point, got int64"):
        F.relu(np.arange(3))
