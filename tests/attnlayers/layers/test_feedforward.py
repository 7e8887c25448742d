"""Affine, Embedding, Softmax and Dropout, each for one step and for all: what is theirs beyond the pure pairs."""

import re
from math import log
from typing import Any

import numpy as np
import pytest
from support import Draw, Library

from attnlayers import (
    Affine,
    Dropout,
    Embedding,
    Layer,
    Softmax,
    SoftmaxWithLoss,
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeSoftmaxWithLoss,
)
from attnlayers import functional as F

N, T, D, H, V = 2, 3, 5, 7, 11


def test_affine_is_the_pure_pair(library: Library) -> None:
    d = Draw(library)
    W, b, x, dout = d(D, H), d(H), d(N, T, D), d(N, T, H)
    expected, saved = F.affine(x, W, b)
    dx, dW, db = F.affine_backward(saved, dout)
    for layer in (Affine(W, b), TimeAffine(W, b)):
        assert layer.params[0] is W
        assert layer.params[1] is b
        np.testing.assert_array_equal(library.numpy(layer.forward(x)), library.numpy(expected))
        for found, wanted in zip((layer.backward(dout), *layer.grads), (dx, dW, db), strict=True):
            np.testing.assert_array_equal(library.numpy(found), library.numpy(wanted))


def test_affine_at_every_step_is_affine_of_each(library: Library) -> None:
    d = Draw(library)
    W, b, xs = d(D, H), d(H), d(N, T, D)
    together = library.numpy(TimeAffine(W, b).forward(xs))
    for t in range(T):
        alone = Affine(W, b).forward(library.array(library.numpy(xs)[:, t]))
        np.testing.assert_allclose(together[:, t], library.numpy(alone), atol=1e-14)


def test_embedding_by_hand(library: Library) -> None:
    layer = TimeEmbedding(library.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    out = layer.forward(library.array([[1, 1, 0]]))
    assert library.numpy(out).tolist() == [[[3, 4], [3, 4], [1, 2]]]
    assert layer.backward(library.array([[[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]]])) is None
    assert library.numpy(layer.grads[0]).tolist() == [[100, 100], [11, 11], [0, 0]]


def test_embedding_takes_ids_of_any_rank(library: Library) -> None:
    d = Draw(library)
    layer = Embedding(d(V, D))
    for shape in ((), (N,), (N, T), (0,)):
        ids = d.ids(V, *shape)
        out = layer.forward(ids)
        np.testing.assert_array_equal(library.numpy(out), library.numpy(layer.params[0])[library.numpy(ids)])
        layer.backward(out)


def test_softmax_is_the_pure_pair(library: Library) -> None:
    d = Draw(library)
    x, dout = d(N, T, V), d(N, T, V)
    expected, saved = F.softmax(x)
    layer = Softmax()
    np.testing.assert_array_equal(library.numpy(layer.forward(x)), library.numpy(expected))
    np.testing.assert_array_equal(library.numpy(layer.backward(dout)), library.numpy(F.softmax_backward(saved, dout)))


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, TimeSoftmaxWithLoss])
def test_loss_by_hand(library: Library, kind: type[SoftmaxWithLoss]) -> None:
    layer = kind()
    assert layer.ignore_label == -1
    loss = layer.forward(library.array([[[0.0, log(3)], [0.0, 0.0], [9.0, 1.0]]]), library.array([[1, 0, -1]]))
    assert float(library.numpy(loss)) == pytest.approx((log(4 / 3) + log(2)) / 2)
    expected = np.array([[[1 / 8, -1 / 8], [-1 / 4, 1 / 4], [0, 0]]])
    assert library.numpy(layer.backward()) == pytest.approx(expected)
    assert library.numpy(layer.backward(2.0)) == pytest.approx(2 * expected)
    layer.ignore_label = 0
    loss = layer.forward(library.array([[[0.0, log(3)], [0.0, 0.0]]]), library.array([[1, 0]]))
    assert float(library.numpy(loss)) == pytest.approx(log(4 / 3))


@pytest.mark.parametrize("kind", [Dropout, TimeDropout])
def test_dropout(library: Library, kind: type[Dropout]) -> None:
    d = Draw(library)
    xs = library.array(np.ones((13, 17, 19)))
    layer = kind(0.25, seed=1)
    out = library.numpy(layer.forward(xs))
    assert set(np.unique(out.round(6))) == {0, round(4 / 3, 6)}
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.03)
    dout = d(13, 17, 19)
    np.testing.assert_allclose(library.numpy(layer.backward(dout)), library.numpy(dout) * out)
    assert not np.array_equal(library.numpy(layer.forward(xs)), out)
    layer.reseed(1)
    np.testing.assert_array_equal(library.numpy(layer.forward(xs)), out)
    np.testing.assert_array_equal(library.numpy(kind(0.25, seed=1).forward(xs)), out)


@pytest.mark.parametrize("kind", [Dropout, TimeDropout])
def test_dropout_lets_everything_pass_when_it_does_not_train(library: Library, kind: type[Dropout]) -> None:
    d = Draw(library)
    xs, dout, layer = d(N, T, D), d(N, T, D), kind()
    assert layer.training
    for options in ({"training": False}, {}):
        layer.training = bool(options)
        np.testing.assert_array_equal(library.numpy(layer.forward(xs, **options)), library.numpy(xs))
        np.testing.assert_array_equal(library.numpy(layer.backward(dout)), library.numpy(dout))
    assert (library.numpy(layer.forward(xs, training=True)) == 0).any()


@pytest.mark.parametrize("ratio", [1, 1.5, -0.1, float("nan")])
def test_a_dropout_ratio_out_of_range(ratio: float) -> None:
    for kind in (Dropout, TimeDropout):
        with pytest.raises(ValueError, match=f"^{re.escape(f'`dropout` must lie in [0, 1), got {ratio}')}$"):
            kind(ratio)


@pytest.mark.parametrize("shape", [(0, T), (N, 0), (0, 0)])
def test_of_nothing(library: Library, shape: tuple[int, int]) -> None:
    d = Draw(library)
    ids = library.array(np.zeros(shape), "int64")
    layers: list[tuple[Layer, Any]] = [
        (TimeAffine(d(D, H), d(H)), d(*shape, D)),
        (TimeEmbedding(d(V, D)), ids),
        (Softmax(), d(*shape, V)),
        (TimeDropout(), d(*shape, D)),
    ]
    for layer, x in layers:
        out = layer.forward(x)
        assert tuple(out.shape)[:2] == shape
        layer.backward(out)
        assert all((library.numpy(g) == 0).all() for g in layer.grads)
    loss = TimeSoftmaxWithLoss()
    assert float(library.numpy(loss.forward(d(*shape, V), ids))) == 0
    assert tuple(loss.backward().shape) == (*shape, V)


def test_shapes_that_do_not_fit(library: Library) -> None:
    d = Draw(library)
    calls: list[tuple[Any, str]] = [
        (lambda: Affine(d(D, H), d(D)), "`b` must have shape (H,) = (7,) to go with W (5, 7), got (5,)"),
        (lambda: Embedding(d(V)), "`W` must have shape (V, D), got (11,)"),
        (lambda: TimeAffine(d(D, H), d(H)).forward(d(N, D)), "`x` must have shape (N, T, D), got (2, 5)"),
        (lambda: TimeEmbedding(d(V, D)).forward(d.ids(V, N)), "`ids` must have shape (N, T), got (2,)"),
        (lambda: TimeDropout().forward(d(N, D)), "`x` must have shape (N, T, H), got (2, 5)"),
        (
            lambda: TimeSoftmaxWithLoss().forward(d(N, T, V), d.ids(V, N, T + 1)),
            "`ts` must have shape (N, T) = (2, 3) to go with xs (2, 3, 11), got (2, 4)",
        ),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


def test_ids_and_labels_outside_the_vocabulary(library: Library) -> None:
    d = Draw(library)
    with pytest.raises(
        IndexError, match=r"^`ids` must lie in 0 \.\. 10, got 11: give W a row for each id, or leave the id out$"
    ):
        library.wait(TimeEmbedding(d(V, D)).forward(library.array([[0, 11]])))
    message = (
        "`labels` must lie in 0 .. 10, or be -1 where they do not count, got -2: give logits a column for each label"
    )
    with pytest.raises(IndexError, match=f"^{re.escape(message)}$"):
        library.wait(TimeSoftmaxWithLoss().forward(d(1, 2, V), library.array([[-2, 0]])))


def test_params_of_two_dtypes_are_refused(library: Library) -> None:
    with pytest.raises(
        TypeError, match=r"^`b` must have the dtype of W, .*float64, got .*float32: convert one of them"
    ):
        Affine(Draw(library)(D, H), Draw(library, "float32")(H))
    layer = Affine(Draw(library)(D, H), Draw(library)(H))
    with pytest.raises(
        TypeError, match=r"^`W` must have the dtype of x, .*float32, got .*float64: convert one of them"
    ):
        layer.forward(Draw(library, "float32")(N, D))
