"""What every layer refuses, under the name that its caller knows the argument by."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import CASES, T_DEC, H, N, T, name_of
from conftest import library_of
from support import Draw, Library

from attnlayers import MultiHeadAttention, Softmax, WeightSum
from attnlayers import functional as F
from attnlayers.book import layers as book_layers

NUMPY = library_of("numpy")


# Layers whose first input may have any number of axes, or any length of the last one.
FITS = {
    "rank": ("Affine", "Dropout", "Embedding", "FeedForward", "LayerNorm", "RMSNorm", "Softmax"),
    "axis": ("Dropout", "SinusoidalPositions", "Softmax", "SoftmaxWithLoss", "TimeDropout", "TimeSoftmaxWithLoss",
             "WeightSum"),
}  # fmt: skip


def wrong(x: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Arrays like x that no layer with weights can take in its place."""
    yield "rank", x[None] if x.dtype == bool else x[0]
    if x.dtype.kind == "i":
        yield "dtype", x.astype(float)
        return
    yield "dtype", x.astype(int)
    yield "axis", np.concatenate([x, x], axis=-1)
    yield "masked", np.ma.masked_array(x, x > 0)


def arguments() -> Iterator[tuple[str, int]]:
    for case, make in CASES.items():
        yield from ((case, i) for i in range(len(make(Draw(NUMPY))[1])))


@pytest.mark.parametrize(("case", "i"), list(arguments()))
def test_an_input_that_does_not_fit_is_named(case: str, i: int) -> None:
    layer, inputs = CASES[case](Draw(NUMPY))
    names = list(inspect.signature(layer.forward).parameters)[: len(inputs)]
    for kind, array in wrong(inputs[i]):
        given = [*inputs[:i], array, *inputs[i + 1 :]]
        if i == 0 and name_of(case) in FITS.get(kind, ()):
            continue
        with pytest.raises((TypeError, ValueError)) as raised:
            layer.forward(*given)
        # Where two inputs do not fit each other, either may be named.
        named = re.findall(r"`(\w+)`|\b(\w+) \(", str(raised.value))
        allowed = names if kind in ("rank", "axis") else names[i : i + 1]
        assert {name for pair in named for name in pair} & set(allowed), raised.value


MASKED = np.ma.masked_array(np.ones((N, T)), np.tile(np.arange(T) == 1, (N, 1)))


@pytest.mark.parametrize(
    ("given", "name", "kind"),
    [
        (MASKED, "x", r"MaskedArray: pass `\.filled\(\.\.\.\)` of it, and what it leaves out as a boolean mask"),
        (np.ma.masked_array(np.ones((N, T))), "x", "MaskedArray"),
        (np.ones((N, T)).view(np.matrix), "x", r"matrix: pass `numpy\.asarray\(\.\.\.\)` of it"),
    ],
)
def test_arrays_whose_operators_mean_something_else(given: Any, name: str, kind: str) -> None:
    for call in (Softmax().forward, F.softmax, F.relu, lambda x: book_layers.Softmax().forward(x)):
        with pytest.raises(TypeError, match=f"`{name}` must be a plain array, got {kind}"):
            call(given)
    with pytest.raises(TypeError, match=f"`a` must be a plain array, got {kind}"):
        WeightSum().forward(np.ones((N, T, H)), given)
    q = np.ones((N, 3, H))
    with pytest.raises(TypeError, match=f"`mask` must be a plain array, got {kind}"):
        F.attention(q, np.ones((N, T, H)), np.ones((N, T, H)), mask=given)
    with pytest.raises(TypeError, match="must be a plain array, got"):
        F.attention(q, q, q, key_lengths=np.ma.masked_array([3, 3], [0, 1]))
    with pytest.raises(TypeError, match="must be a plain array, got"):
        book_layers.Affine(np.ones((T, H)), np.ones(H)).forward(given)
    np.testing.assert_array_equal(F.relu(np.asarray(given))[0], np.ones((N, T)))  # what has no mask is taken


def test_a_map_of_memory_is_an_array(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=(N, T))
    np.testing.assert_allclose(F.softmax(mapped)[0], np.full((N, T), 1 / T, np.float32))


@pytest.mark.parametrize("masked", [False, True])
def test_a_bias_that_does_not_fit_is_named(library: Library, masked: bool) -> None:
    d = Draw(library)
    layer = MultiHeadAttention(*(d(6, 6) for _ in range(4)), heads=3)
    mask = library.array(np.ones((N, T_DEC), bool)) if masked else None
    with pytest.raises(ValueError, match=r"`bias` must broadcast to \(N, heads, T, T_k\) = \(2, 3, 3, 3\), got \(4,\)"):
        layer.forward(d(N, T_DEC, 6), None, mask, bias=d(4))
    with pytest.raises(TypeError, match="`bias` must be floating point, got"):
        layer.forward(d(N, T_DEC, 6), None, mask, bias=d.ids(2, T_DEC))
    with pytest.raises(TypeError, match="`bias` must be floating point, got"):
        layer.forward(d(N, T_DEC, 6), None, mask, bias=library.array(np.ones(T_DEC, bool)))
    with pytest.raises(TypeError, match="`mask` must be boolean, got"):
        layer.forward(d(N, T_DEC, 6), None, d(N, T_DEC))
    out = layer.forward(d(N, T_DEC, 6), None, mask)
    with pytest.raises(ValueError, match=r"`grads` may name 'bias' where forward was given one, got \['bias'\]"):
        layer.backward(out, grads=("bias",))
    out = layer.forward(d(N, T_DEC, 6), None, mask, bias=d(T_DEC))
    with pytest.raises(ValueError, match=r"`grads` may name 'bias' where forward was given one, got \['sinks'\]"):
        layer.backward(out, grads=("sinks",))
