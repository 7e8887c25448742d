"""layer_norm and rms_norm."""

from typing import Any

import numpy as np
import pytest
from pairs import Pair
from support import Draw, Library

from attnlayers import functional as F
from attnlayers import gradcheck

N, T, D = 2, 3, 7
PAIRS = {"layer_norm": (F.layer_norm, F.layer_norm_backward, 3), "rms_norm": (F.rms_norm, F.rms_norm_backward, 2)}


def by_loops(name: str, x: np.ndarray, gain: np.ndarray, bias: Any, epsilon: float) -> np.ndarray:
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape[:-1]):
        row = x[place] - (sum(x[place]) / D if name == "layer_norm" else 0)
        size = (sum(value**2 for value in row) / D + epsilon) ** 0.5
        for d in range(D):
            out[(*place, d)] = row[d] / size * gain[d] + (0 if bias is None else bias[d])
    return out


@pytest.mark.parametrize("name", PAIRS)
def test_against_loops(library: Library, name: str) -> None:
    draw = Draw(library)
    forward, _, count = PAIRS[name]
    x, gain, bias = draw(N, T, D), draw(D), draw(D) if count == 3 else None
    out, _ = forward(x, gain, *([] if bias is None else [bias]), epsilon=0.25)
    expected = by_loops(
        name, library.numpy(x), library.numpy(gain), None if bias is None else library.numpy(bias), epsilon=0.25
    )
    np.testing.assert_allclose(library.numpy(out), expected, rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("lead", [(), (N,), (N, T)])
def test_gradients(library: Library, name: str, lead: tuple[int, ...]) -> None:
    draw = Draw(library)
    forward, backward, count = PAIRS[name]
    gradcheck(Pair(forward, backward), draw(*lead, D), *(draw(D) for _ in range(count - 1)))


@pytest.mark.parametrize("name", PAIRS)
def test_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(0)
    forward, backward, count = PAIRS[name]
    inputs = [rng.standard_normal((N, T, D)), *(rng.standard_normal(D) for _ in range(count - 1))]
    dout = rng.standard_normal((N, T, D))
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    theirs = getattr(torch.nn.functional, name)(leaves[0], (D,), *leaves[1:], eps=1e-5)
    theirs.backward(torch.tensor(dout))
    out, saved = forward(*inputs, epsilon=1e-5)
    expected = [theirs.detach(), *(leaf.grad for leaf in leaves)]
    for one, other in zip([out, *backward(saved, dout)], expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_half_precision_is_computed_in_float32(library: Library, name: str) -> None:
    if not hasattr(library.xp, "float16"):
        pytest.skip(f"{library.backend.name} has no float16")
    forward, backward, count = PAIRS[name]
    values = np.random.default_rng(1).standard_normal((N, T, D)) * 1000  # squares do not fit float16
    small = [np.ones(D)] * (count - 1)
    x = library.array(values, "float16")
    out, saved = forward(x, *(library.array(s, "float16") for s in small))
    exact, _ = forward(library.numpy(x).astype(np.float64), *small)
    assert out.dtype == x.dtype
    np.testing.assert_allclose(library.numpy(out), exact, rtol=2e-3, atol=2e-3)
    assert all(g.dtype == x.dtype for g in backward(saved, out))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`gain` must have shape \(D,\) = \(3,\) to go with x \(2, 3\), got \(2,\)"):
        F.rms_norm(np.ones((2, 3)), np.ones(2))
    _, saved = F.layer_norm(np.ones((2, 3)), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"`dout` must have the shape of the output, \(2, 3\), got \(3,\)"):
        F.layer_norm_backward(saved, np.ones(3))
