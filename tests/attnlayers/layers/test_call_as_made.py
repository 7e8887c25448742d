"""Gradients are those of the call as it was made, whatever becomes of its results and masks before backward."""

from typing import Any

import numpy as np
import pytest
from cases import CASES
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import functional as F

NAMES = ["numpy", "array_api_strict", "torch", "cupy"]
WEIGHTS = ("attention_weight", "attention_weights", "centres")


def is_mask(x: Any) -> bool:
    return "bool" in str(x.dtype)


def spoil(x: Any) -> None:
    """Overwrite an array, or each of a list or tuple of them."""
    for array in x if isinstance(x, (tuple, list)) else [x]:
        if not isinstance(array, np.generic):  # a loss: a number that cannot be written to
            array[...] = ~array if is_mask(array) else 1_000_000 if "int" in str(array.dtype) else 1e4


def gradients(library: Library, case: str, dtype: str, *, spoiled: bool) -> list[np.ndarray]:
    d = Draw(library, dtype, seed=1)
    layer, inputs = CASES[case](d)
    outs = layer.forward(*inputs)
    douts = [d(*out.shape) for out in (outs if isinstance(outs, tuple) else (outs,))]
    if spoiled:
        for name in WEIGHTS:
            if (held := getattr(layer, name, None)) is not None:
                spoil(held)
        spoil([x for x in inputs if is_mask(x)])
        spoil(outs)
    returned = layer.backward(*douts)
    found = [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]
    return [library.numpy(x) for x in (*found, *layer.grads)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_writing_to_results_and_masks_does_not_change_gradients(name: str, case: str, dtype: str) -> None:
    if name == "array_api_strict" and dtype == "float16":
        pytest.skip("array-api-strict has no half precision")
    library = library_of(name)
    with np.errstate(all="ignore"):
        expected = gradients(library, case, dtype, spoiled=False)
        found = gradients(library, case, dtype, spoiled=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(
    masked=st.booleans(),
    biased=st.booleans(),
    keep_bytes=st.sampled_from([0, 2**20]),
    causal=st.booleans(),
    return_weights=st.booleans(),
    axes=st.integers(0, 4),
    T_q=st.sampled_from([1, 3]),
    shared=st.booleans(),
)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_of_attention(
    name: str,
    masked: bool,
    biased: bool,
    keep_bytes: int,
    causal: bool,
    return_weights: bool,
    axes: int,
    T_q: int,
    shared: bool,
) -> None:
    library, rng = library_of(name), np.random.default_rng(0)
    shapes = ((2, 2, T_q, 4), (2, 2, 5, 4), (2, 2, 5, 4))

    def run(*, spoiled: bool) -> list[np.ndarray]:
        q, k, v = (library.array(np.random.default_rng(i).random(shape)) for i, shape in enumerate(shapes))
        lengths, start = library.array([4, 5]), library.array([1, 2])
        scores = np.random.default_rng(3).random((2, 2, T_q, 5)[4 - axes :]) - 0.3
        mask, bias = library.array(scores > 0) if masked else None, library.array(scores) if biased else None
        *results, saved = F.attention(
            q, k, None if shared else v, mask=mask, bias=bias, causal=causal, query_start=start, key_lengths=lengths,
            keep_bytes=keep_bytes, return_weights=return_weights, return_lse=True,
        )  # fmt: skip
        if spoiled:
            spoil([x for x in (*results, saved.weights, lengths, start, mask, bias) if x is not None])
        found = F.attention_backward(saved, library.array(dout), grads=("bias",) if biased else ())
        return [library.numpy(x) for x in found]

    dout = rng.random((2, 2, T_q, 4))
    for a, b in zip(run(spoiled=True), run(spoiled=False), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_of_weights_alone(name: str) -> None:
    library = library_of(name)
    d = Draw(library)
    q, k, mask, dweights = d(2, 3, 4), d(2, 5, 4), d.mask(2, 1, 5), d(2, 3, 5)
    kept = library.array(library.numpy(mask))
    expected = F.attention_weights_backward(F.attention_weights(q, k, mask=kept)[1], dweights)
    weights, saved = F.attention_weights(q, k, mask=mask)
    spoil([weights, mask])
    for a, b in zip(F.attention_weights_backward(saved, dweights), expected, strict=True):
        np.testing.assert_array_equal(library.numpy(a), library.numpy(b))
