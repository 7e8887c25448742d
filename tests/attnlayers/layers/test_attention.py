"""The attention layers of the book's chapter 8."""

import re
from math import log
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from support import Draw, Library, assert_as_exact_as

from attnbackends import BackendError
from attnlayers import Attention, AttentionWeight, TimeAttention, WeightSum
from attnlayers.bench.loops import BookAttention, BookAttentionWeight, BookTimeAttention, BookWeightSum

N, T_DEC, T_ENC, H = 3, 5, 7, 11
MASK = np.arange(T_ENC) < np.array([[7], [3], [1]])
PADDED = np.array([[1, 1, 1, 1, 1, 0, 1], [0] * 7, [0, 1, 1, 0, 0, 0, 1]]) > 0
BOOK: list[tuple[Any, Any, tuple[tuple[int, ...], ...], bool]] = [
    (WeightSum, BookWeightSum, ((N, T_ENC, H), (N, T_ENC)), False),
    (AttentionWeight, BookAttentionWeight, ((N, T_ENC, H), (N, H)), True),
    (Attention, BookAttention, ((N, T_ENC, H), (N, H)), True),
    (TimeAttention, BookTimeAttention, ((N, T_ENC, H), (N, T_DEC, H)), True),
]
CASES = [
    pytest.param(layer, book, shapes, mask, id=f"{layer.__name__}-{name}")
    for layer, book, shapes, maskable in BOOK
    for name, mask in [("all", None), *([("ends", MASK), ("holes", PADDED)] if maskable else [])]
]


def run(layer: Any, inputs: list[Any], mask: Any, dout: Any) -> list[Any]:
    out = layer.forward(*inputs) if mask is None else layer.forward(*inputs, mask)
    return [out, *layer.backward(dout(out.shape))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layer", "book", "shapes", "mask"), CASES)
def test_against_the_book(library: Library, layer: Any, book: Any, shapes: Any, mask: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    seed = rng.standard_normal(1000).astype(dtype)

    def dout(shape: Any) -> np.ndarray:
        return seed[: int(np.prod(shape))].reshape(tuple(shape))

    given = None if mask is None else library.array(mask)
    found = run(layer(), [library.array(x) for x in arrays], given, lambda shape: library.array(dout(shape)))
    plain = run(book(), arrays, mask, dout)
    exact = run(book(), [x.astype(np.longdouble) for x in arrays], mask, lambda s: dout(s).astype(np.longdouble))
    for one, by_book, truth in zip(found, plain, exact, strict=True):
        assert_as_exact_as(by_book, library.numpy(one), truth, factor=8)


def test_by_hand(library: Library) -> None:
    """Weights 1/6, 2/6, 3/6 from scores 0, log 2, log 3; the states double as values."""
    hs, h = library.array([[[0.0], [log(2)], [log(3)]]]), library.array([[1.0]])
    weigh = AttentionWeight()
    a = weigh.forward(hs, h)
    assert library.numpy(a) == pytest.approx(np.array([[1, 2, 3]]) / 6)
    c = WeightSum().forward(hs, a)
    expected = (2 * log(2) + 3 * log(3)) / 6
    assert library.numpy(c) == pytest.approx(np.array([[expected]]))
    layer = Attention()
    assert library.numpy(layer.forward(hs, h)) == pytest.approx(np.array([[expected]]))
    assert library.numpy(layer.attention_weight) == pytest.approx(np.array([[1, 2, 3]]) / 6)
    # da = (6, 0, 0): a . da = 1, so the scores get a * (da - 1)
    dhs, dh = (library.numpy(d) for d in weigh.backward(library.array([[6.0, 0.0, 0.0]])))
    assert dhs == pytest.approx(np.array([[[5], [-2], [-3]]]) / 6)
    assert dh == pytest.approx(np.array([[(-2 * log(2) - 3 * log(3)) / 6]]))


def test_the_softmax_is_not_scaled(library: Library) -> None:
    hs, h = library.array(np.eye(4)[None]), library.array([[log(3), 0.0, 0.0, 0.0]])
    assert library.numpy(AttentionWeight().forward(hs, h)) == pytest.approx(np.array([[3, 1, 1, 1]]) / 6)


def test_attention_weights_stack_as_in_the_book(library: Library) -> None:
    d = Draw(library)
    layer = TimeAttention()
    assert layer.attention_weights is None
    layer.forward(d(N, T_ENC, H), d(N, T_DEC, H), library.array(MASK))
    assert isinstance(layer.attention_weights, list)
    weights = np.array([library.numpy(w) for w in layer.attention_weights])
    assert weights.shape == (T_DEC, N, T_ENC)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert (weights[:, ~MASK] == 0).all()


def test_attention_weights_make_one_numpy_array() -> None:
    rng = np.random.default_rng(0)
    layer = TimeAttention()
    layer.forward(rng.standard_normal((N, T_ENC, H)), rng.standard_normal((N, T_DEC, H)))
    weights = np.array(layer.attention_weights)
    assert weights.shape == (T_DEC, N, T_ENC)
    assert weights.dtype == np.float64


def test_the_weight_of_one_step(library: Library) -> None:
    d = Draw(library)
    layer, hs, h = Attention(), d(N, T_ENC, H), d(N, H)
    assert layer.attention_weight is None
    layer.forward(hs, h, library.array(PADDED))
    weight = library.numpy(layer.attention_weight)
    expected = library.numpy(AttentionWeight().forward(hs, h, library.array(PADDED)))
    np.testing.assert_allclose(weight, expected, atol=1e-15)
    np.testing.assert_allclose(weight.sum(axis=-1), [1, 0, 1])


def test_padding_is_as_if_it_were_not_there(library: Library) -> None:
    d = Draw(library)
    hs_enc, hs_dec, dout = d(N, T_ENC, H), d(N, T_DEC, H), d(N, T_DEC, H)
    layer = TimeAttention()
    out = library.numpy(layer.forward(hs_enc, hs_dec, library.array(MASK)))
    dhs_enc, dhs_dec = (library.numpy(g) for g in layer.backward(dout))
    for n, length in enumerate(MASK.sum(axis=1)):
        enc, dec, d_out = (library.array(library.numpy(x)[n : n + 1]) for x in (hs_enc, hs_dec, dout))
        cut = library.array(library.numpy(enc)[:, :length])
        alone = TimeAttention()
        np.testing.assert_allclose(out[n : n + 1], library.numpy(alone.forward(cut, dec)), atol=1e-14)
        cut_enc, cut_dec = (library.numpy(g) for g in alone.backward(d_out))
        np.testing.assert_allclose(dhs_enc[n : n + 1, :length], cut_enc, atol=1e-13)
        np.testing.assert_allclose(dhs_dec[n : n + 1], cut_dec, atol=1e-13)
        assert (dhs_enc[n, length:] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [AttentionWeight, Attention, TimeAttention])
def test_padding_may_hold_anything(library: Library, kind: Any, bad: float) -> None:
    d = Draw(library)
    hs, query = d(N, T_ENC, H), d(N, T_DEC, H) if kind is TimeAttention else d(N, H)
    padding = library.numpy(hs).copy()
    padding[~PADDED] = bad
    mask, runs = library.array(PADDED), []
    for states in (hs, library.array(padding)):
        layer = kind()
        out = layer.forward(states, query, mask)
        runs.append([library.numpy(x) for x in (out, *layer.backward(out + 1))])
    for clean, found in zip(*runs, strict=True):
        np.testing.assert_array_equal(found, clean)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", [AttentionWeight, Attention, TimeAttention])
def test_a_sentence_of_nothing_but_padding(library: Library, kind: Any) -> None:
    d = Draw(library)
    layer = kind()
    query = d(N, T_DEC, H) if kind is TimeAttention else d(N, H)
    out = layer.forward(d(N, T_ENC, H), query, library.array(PADDED))
    gradients = [library.numpy(g) for g in layer.backward(out + 1)]
    for array in (library.numpy(out), *gradients):
        assert (array[1] == 0).all()
        assert array[[0, 2]].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch", "T_enc", "T_dec"), [(0, 7, 5), (3, 0, 5), (3, 7, 0), (3, 0, 0), (0, 0, 0)])
def test_time_attention_of_nothing(library: Library, batch: int, T_enc: int, T_dec: int, masked: bool) -> None:
    d = Draw(library)
    layer = TimeAttention()
    mask = (library.array(np.ones((batch, T_enc), dtype=bool)),) if masked else ()
    out = layer.forward(d(batch, T_enc, H), d(batch, T_dec, H), *mask)
    assert tuple(out.shape) == (batch, T_dec, H)
    dhs_enc, dhs_dec = layer.backward(d(batch, T_dec, H))
    assert layer.attention_weights is not None
    assert [tuple(w.shape) for w in layer.attention_weights] == [(batch, T_enc)] * T_dec
    assert (tuple(dhs_enc.shape), tuple(dhs_dec.shape)) == ((batch, T_enc, H), (batch, T_dec, H))
    for array in (out, dhs_enc, dhs_dec):
        assert (library.numpy(array) == 0).all()


MESSAGES = [
    (WeightSum, ((2, 5, 7), (2, 4)), "`a` must have shape (N, T) = (2, 5) to go with hs (2, 5, 7), got (2, 4)"),
    (WeightSum, ((5, 7), (2, 5)), "`hs` must have shape (N, T, H), got (5, 7)"),
    (AttentionWeight, ((2, 5, 7), (2, 6)), "`h` must have shape (N, H) = (2, 7) to go with hs (2, 5, 7), got (2, 6)"),
    (Attention, ((2, 5, 7), (3, 7)), "`h` must have shape (N, H) = (2, 7) to go with hs (2, 5, 7), got (3, 7)"),
    (TimeAttention, ((2, 5, 7), (2, 3, 8)),
     "`hs_dec` must have shape (N, T_dec, H) = (2, 3, 7) to go with hs_enc (2, 5, 7), got (2, 3, 8)"),
    (TimeAttention, ((2, 5, 7), (2, 7)),
     "`hs_dec` must have shape (N, T_dec, H) = (2, T_dec, 7) to go with hs_enc (2, 5, 7), got (2, 7)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shapes", "message"), MESSAGES)
def test_shapes_that_do_not_fit(library: Library, kind: Any, shapes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind().forward(*(library.array(np.zeros(shape)) for shape in shapes))


@pytest.mark.parametrize("kind", [AttentionWeight, Attention, TimeAttention])
def test_masks_that_do_not_fit(library: Library, kind: Any) -> None:
    d = Draw(library)
    hs, query = d(2, 5, 7), d(2, 3, 7) if kind is TimeAttention else d(2, 7)
    with pytest.raises(
        ValueError, match=r"^`mask` must have shape \(N, T(_enc)?\) = \(2, 5\) to go with .*, got \(5, 2\)$"
    ):
        kind().forward(hs, query, d.mask(5, 2))
    with pytest.raises(TypeError, match=r"^`mask` must be boolean, got .*int64: convert it with xp.astype$"):
        kind().forward(hs, query, d.ids(2, 2, 5))


@pytest.mark.parametrize(
    ("kind", "name"), [(WeightSum, "dc"), (AttentionWeight, "da"), (Attention, "dout"), (TimeAttention, "dout")]
)
def test_gradients_that_do_not_fit(library: Library, kind: Any, name: str) -> None:
    d = Draw(library)
    layer = kind()
    out = layer.forward(d(2, 5, 7), {WeightSum: d(2, 5), TimeAttention: d(2, 3, 7)}.get(kind, d(2, 7)))
    with pytest.raises(ValueError, match=rf"^`{name}` must have .*, got \(4, 4\)$"):
        layer.backward(d(4, 4))
    with pytest.raises(ValueError, match=rf"^`{name}` must have .*, got "):
        layer.backward(d(out.shape[0], *out.shape[1:-1], out.shape[-1] + 1))
    with pytest.raises(TypeError, match=rf"^`{name}` must have the dtype of .*float64, got .*float32"):
        layer.backward(Draw(library, "float32")(*out.shape))


def test_a_mixture_of_libraries_is_refused_by_name() -> None:
    strict, own = Draw(library_of("array_api_strict")), Draw(library_of("numpy"))
    with pytest.raises(
        BackendError, match=r"`hs_enc` is a array_api_strict array on .*, `hs_dec` is a numpy array on cpu"
    ):
        TimeAttention().forward(strict(2, 5, 7), own(2, 3, 7))
    layer = TimeAttention()
    layer.forward(own(2, 5, 7), own(2, 3, 7))
    with pytest.raises(BackendError, match="`dout` is a array_api_strict array on"):
        layer.backward(strict(2, 3, 7))
