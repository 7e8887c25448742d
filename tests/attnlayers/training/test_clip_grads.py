"""Clipping by the common norm of all gradients."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends import BackendError, get_backend
from attnlayers.training import clip_grads


def grads_of(library: Library, values: list[Any], dtype: str = "float64") -> list[Any]:
    """Gradients that may be written to, whatever the library."""
    return [library.array(value, dtype) + 0 for value in values]


def on_host(library: Library, grads: list[Any]) -> list[list[float]]:
    return [library.numpy(grad).tolist() for grad in grads]


def test_above_the_norm_all_are_scaled_down(library: Library) -> None:
    values = [[[3.0, 0.0], [0.0, -4.0]], [12.0]]  # 9 + 16 + 144 = 13 * 13
    grads = grads_of(library, values)
    places = [*grads]
    norm = clip_grads(grads, 2.6)
    assert tuple(norm.shape) == ()
    assert float(norm) == pytest.approx(13.0, rel=1e-12)
    assert all(grad is place for grad, place in zip(grads, places, strict=True))
    np.testing.assert_allclose(library.numpy(grads[0]), [[0.6, 0], [0, -0.8]], rtol=1e-6)
    np.testing.assert_allclose(library.numpy(grads[1]), [2.4], rtol=1e-6)
    left = sqrt(sum(x * x for grad in grads for x in library.numpy(grad).flatten().tolist()))
    assert left <= 2.6
    assert left == pytest.approx(2.6, rel=1e-6)


@pytest.mark.parametrize("max_norm", [13.1, 1e6, float("inf")])
def test_below_the_norm_nothing_changes(library: Library, max_norm: float) -> None:
    values = [[[3.0, 0.0], [0.0, -4.0]], [12.0]]
    grads = grads_of(library, values)
    assert float(clip_grads(grads, max_norm)) == pytest.approx(13.0, rel=1e-12)
    assert on_host(library, grads) == values


def test_at_the_norm_hardly_anything_changes(library: Library) -> None:
    grads = grads_of(library, [[3.0], [4.0]])
    assert float(clip_grads(grads, 5.0)) == pytest.approx(5.0, rel=1e-12)
    np.testing.assert_allclose([library.numpy(grad)[0] for grad in grads], [3.0, 4.0], rtol=1e-6)


def test_zero_stays_zero(library: Library) -> None:
    grads = grads_of(library, [np.zeros((2, 3)), np.zeros(4)])
    assert float(clip_grads(grads, 5.0)) == 0
    assert all(not np.any(library.numpy(grad)) for grad in grads)


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_float32_stays_float32(library: Library, max_norm: float) -> None:
    grads = grads_of(library, [np.ones((2, 3)), np.ones(4)], "float32")
    norm = clip_grads(grads, max_norm)
    assert norm.dtype == library.xp.float32
    assert all(grad.dtype == library.xp.float32 for grad in grads)
    assert float(norm) == pytest.approx(sqrt(10), rel=1e-6)


def test_a_single_gradient(library: Library) -> None:
    (grad,) = grads_of(library, [[3.0, 4.0]])
    assert float(clip_grads([grad], 1.0)) == pytest.approx(5.0, rel=1e-12)
    np.testing.assert_allclose(library.numpy(grad), [0.6, 0.8], rtol=1e-6)


def test_the_norm_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape) for shape in ((3, 5), (7,), (2, 2, 2))]
    tensors = [torch.zeros(grad.shape, dtype=torch.float64, requires_grad=True) for grad in grads]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(grad)
    norm, peer = clip_grads(grads, 0.7), torch.nn.utils.clip_grad_norm_(tensors, 0.7)
    assert float(norm) == pytest.approx(float(peer), rel=1e-12)
    for tensor, grad in zip(tensors, grads, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-12)


def test_gradients_of_two_libraries_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BackendError, match="must live in one place"):
        clip_grads([get_backend("numpy").xp.ones(2), torch.ones(2)], 1.0)
