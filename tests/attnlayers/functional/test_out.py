"""Gradients of weights, written where the caller wants them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import functional as F
from attnlayers import layers

Make = Callable[[Draw, int, int, int, int], tuple[Callable[..., Any], slice]]


def affine(d: Draw, N: int, T: int, D: int, H: int) -> tuple[Callable[..., Any], slice]:
    saved, dout = F.affine(d(N, T, D), d(D, H), d(H))[1], d(N, T, H)
    return lambda **out: F.affine_backward(saved, dout, **out), slice(1, None)


def affine_without_bias(d: Draw, N: int, T: int, D: int, H: int) -> tuple[Callable[..., Any], slice]:
    saved, dout = F.affine(d(N, T, D), d(D, H))[1], d(N, T, H)
    return lambda **out: F.affine_backward(saved, dout, **out), slice(1, None)


def layer_norm(d: Draw, N: int, T: int, D: int, H: int) -> tuple[Callable[..., Any], slice]:
    saved, dout = F.layer_norm(d(N, T, D), d(D), d(D))[1], d(N, T, D)
    return lambda **out: F.layer_norm_backward(saved, dout, **out), slice(1, None)


def rms_norm(d: Draw, N: int, T: int, D: int, H: int) -> tuple[Callable[..., Any], slice]:
    saved, dout = F.rms_norm(d(N, T, D), d(D))[1], d(N, T, D)
    return lambda **out: F.rms_norm_backward(saved, dout, **out), slice(1, None)


def recurrent(gates: int, forward: Callable[..., Any], backward: Callable[..., Any]) -> Make:
    def make(d: Draw, N: int, T: int, D: int, H: int) -> tuple[Callable[..., Any], slice]:
        *_, saved = forward(d(N, T, D), d(D, gates * H), d(H, gates * H), d(gates * H))
        dhs = d(N, T, H)
        return lambda **out: backward(saved, dhs, **out), slice(1, 4)

    return make


PAIRS: dict[str, Make] = {
    "affine": affine,
    "affine without bias": affine_without_bias,
    "layer norm": layer_norm,
    "rms norm": rms_norm,
    "rnn": recurrent(1, F.rnn, F.rnn_backward),
    "gru": recurrent(3, F.gru, F.gru_backward),
    "lstm": recurrent(4, F.lstm, F.lstm_backward),
}


def places(library: Library, gradients: list[Any], kind: str) -> list[Any]:
    """Arrays like gradients, full of NaN: alone, with gaps, or the rows of one array in one order or in another."""
    xp, dtype = library.xp, gradients[0].dtype
    if kind == "alone":
        return [xp.full(tuple(g.shape), xp.nan, dtype=dtype) for g in gradients]
    if kind == "gaps":
        full = [xp.full(tuple(2 * n for n in g.shape), xp.nan, dtype=dtype) for g in gradients]
        return [array[tuple(slice(0, n) for n in g.shape)] for array, g in zip(full, gradients, strict=True)]
    order = [1, 0, 2] if kind == "stacked" and len(gradients) == 3 else list(range(len(gradients)))
    rows = [1 if g.ndim == 1 else g.shape[0] for g in gradients]
    whole = xp.full((sum(rows), gradients[0].shape[-1]), xp.nan, dtype=dtype)
    found, begin = {}, 0
    for i in order:
        found[i] = whole[begin, :] if gradients[i].ndim == 1 else whole[begin : begin + rows[i], :]
        begin += rows[i]
    return [found[i] for i in range(len(gradients))]


@pytest.mark.parametrize("kind", ["alone", "gaps", "stacked", "in another order"])
@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_written_or_returned(library: Library, pair: str, kind: str, data: st.DataObject) -> None:
    sizes = [data.draw(st.integers(least, 9)) for least in (0, 1, 1, 1)]
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    backward, which = PAIRS[pair](Draw(library, dtype, data.draw(st.integers(0, 99))), *sizes)
    plain = backward()
    out = places(library, list(plain[which]), kind)
    for _ in range(2):
        found = backward(out=out)
        assert all(one is place for one, place in zip(found[which], out, strict=True))
        for one, other in zip(found, plain, strict=True):
            tolerance = 1e-5 if dtype == "float32" else 1e-13  # a product may be summed in another order
            np.testing.assert_allclose(library.numpy(one), library.numpy(other), rtol=tolerance, atol=tolerance * 50)


@pytest.mark.parametrize("pair", PAIRS)
def test_of_other_shapes(library: Library, pair: str) -> None:
    backward, which = PAIRS[pair](Draw(library), 2, 3, 5, 7)
    out = places(library, list(backward()[which]), "alone")
    with pytest.raises(ValueError, match="`out` must hold arrays of the shapes of "):
        backward(out=out[:-1])
    with pytest.raises(ValueError, match="`out` must hold arrays of the shapes of "):
        backward(out=[*out[:-1], out[-1][:-1, ...]])


@pytest.mark.parametrize("layer", [layers.RNN, layers.TimeRNN, layers.TimeGRU, layers.LSTM, layers.TimeLSTM])
def test_gradients_of_one_product_stay_the_rows_of_one_array(library: Library, layer: Any) -> None:
    """A copy of the layer has gradients of its own, which need not lie so."""
    made = layer.create(5, 7, backend=library.backend, dtype="float64")
    dWx, dWh, db = made.grads
    stack = library.backend.stacked((dWh, dWx, db))
    assert stack is None or tuple(stack.shape) == (13, dWx.shape[1])
    assert (stack is None) == (library.backend.name in ("array_api_strict", "torch"))
    d = Draw(library)
    shape = (2, 3) if layer.__name__.startswith("Time") else (2,)
    states = () if len(shape) == 2 else (d(2, 7),) * (2 if layer is layers.LSTM else 1)
    inputs = d(*shape, 5), *states
    douts = (d(*shape, 7),) if len(shape) == 2 or layer is not layers.LSTM else (d(2, 7), d(2, 7))
    other = copy.deepcopy(made)
    for one in (made, other):
        kept = list(one.grads)
        one.forward(*inputs)
        one.backward(*douts)
        assert all(now is then for now, then in zip(one.grads, kept, strict=True))
    for one, another in zip(made.grads, other.grads, strict=True):
        assert np.any(library.numpy(one) != 0)
        np.testing.assert_array_equal(library.numpy(one), library.numpy(another))
