"""CUDA kernels of cross-entropy: results against float64 for logits near and far, and the launches of a call."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

FORWARD, BACKWARD = ["cross_entropy_rows", "cross_entropy_mean"], ["cross_entropy_backward"]


def exact(logits: np.ndarray, labels: np.ndarray, smoothing: float, ignored: int) -> tuple[Any, np.ndarray]:
    """Loss and gradient, from the wanted probabilities written out."""
    V, counts = logits.shape[1], labels != ignored
    wide = logits.astype(np.longdouble)
    above = wide - wide.max(axis=1, keepdims=True)
    logs = above - np.log(np.exp(above).sum(axis=1, keepdims=True))
    wanted = (1 - smoothing) * (np.arange(V) == labels[:, None]) + smoothing / V
    rows = counts[:, None] / np.longdouble(max(1, counts.sum()))
    return -np.sum(wanted * logs * rows), (np.exp(logs) - wanted) * rows


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 41),
    V=st.sampled_from([1, 2, 31, 33, 64, 65, 300, 1100]),
    dtype=st.sampled_from(["float32", "float64"]),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    ignored=st.sampled_from([-1, 0, -100]),
    far=st.sampled_from([0.0, 1e3]),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    dloss=st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30),  # below, float32 underflows
    as_array=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_cross_entropy(
    library: Library,
    launched: list[str],
    rows: int,
    V: int,
    dtype: str,
    smoothing: float,
    ignored: int,
    far: float,
    spread: float,
    dloss: float,
    as_array: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    logits = (far * rng.standard_normal((rows, 1)) + spread * rng.standard_normal((rows, V))).astype(dtype)
    labels = np.where(rng.random(rows) < 0.3, ignored, rng.integers(0, V, rows))
    given_logits = logits.copy()
    given_logits[labels == ignored] = np.nan  # whatever a row holds that does not count
    launched.clear()
    loss, saved = F.cross_entropy(
        library.array(given_logits), library.array(labels), ignore_label=ignored, label_smoothing=smoothing
    )
    assert launched == FORWARD
    dlogits = F.cross_entropy_backward(saved, library.array(dloss, dtype) if as_array else dloss)
    assert launched == FORWARD + BACKWARD
    right, gradient = exact(logits, labels, smoothing, ignored)
    eps, largest = float(np.finfo(dtype).eps), np.ptp(logits, axis=1).max() + np.log(V) + 1
    assert (loss.dtype, dlogits.dtype) == (dtype, dtype)
    assert abs(float(library.numpy(loss)) - right) <= 8 * eps * largest
    # A difference of logits that is rounded by half a unit changes its exponential by as much, relatively.
    allowed = abs(dloss) * eps * ((V + largest) * np.abs(gradient) + 8 / max(1, np.sum(labels != ignored)))
    assert np.all(np.abs(library.numpy(dlogits) - dloss * gradient) <= allowed)


@pytest.mark.parametrize(("dtype", "places"), [("float16", 2e-3), ("float64", 1e-15)])
def test_logits_that_lie_otherwise(library: Library, launched: list[str], dtype: str, places: float) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 5, 7)).astype(dtype), rng.integers(0, 7, (5, 2))
    own = library.xp.permute_dims(library.array(logits), (1, 0, 2))
    loss, saved = F.cross_entropy(own, library.array(labels))
    found = F.cross_entropy_backward(saved)
    assert launched == FORWARD + BACKWARD
    right, gradient = exact(logits.swapaxes(0, 1).reshape(-1, 7), labels.reshape(-1), 0.0, -1)
    assert (loss.dtype, found.dtype, found.shape) == (dtype, dtype, (5, 2, 7))
    assert float(library.numpy(loss)) == pytest.approx(float(right), rel=places)
    np.testing.assert_allclose(library.numpy(found).reshape(-1, 7), gradient.astype(float), atol=places)
