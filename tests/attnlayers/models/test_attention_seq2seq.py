"""The network as a whole: its value, its gradients, padding, initial weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from support import Draw, Library, largest_error

import attnbackends
from attnlayers import gradcheck
from attnlayers.bench.loops import BookTimeAttention
from attnlayers.data import IGNORE, pad
from attnlayers.models import AttentionSeq2seq

V = 11
SOURCES = [[3, 9, 4, 10, 5, 3, 7], [6, 8], [5]]
TARGETS = [[7, 3, 2], [4, 4, 10, 9, 2], [2]]

MakeModel = Callable[..., AttentionSeq2seq]


def batch(library: Library, sources: list[list[int]] = SOURCES, targets: list[list[int]] = TARGETS) -> tuple[Any, ...]:
    """Sources (N, T_enc), inputs and labels (N, T_dec), mask (N, T_enc)."""
    ids, lengths = pad(sources)
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    labels, label_lengths = pad(targets)
    labels[np.arange(labels.shape[1]) >= label_lengths[:, None]] = IGNORE
    inputs = np.concatenate((np.ones_like(labels[:, :1]), np.where(labels == IGNORE, 0, labels)[:, :-1]), axis=1)
    return tuple(library.array(array) for array in (ids, inputs, labels, mask))


def expected_loss(weights: dict[str, np.ndarray], source: list[int], inputs: list[int], labels: list[int]) -> float:
    """Summed over the labels of one pair, by the plain loops of `reference`."""

    def lstm(part: str, ids: list[int], h: np.ndarray) -> np.ndarray:
        Wx, Wh, b = (weights[f"{part}.lstm.{name}"] for name in ("Wx", "Wh", "b"))
        return reference.lstm(weights[f"{part}.embed.W"][[ids]], Wx, Wh, b, h, np.zeros_like(h))[0]

    enc_hs = lstm("encoder", source, np.zeros((1, 5)))
    dec_hs = lstm("decoder", inputs, enc_hs[:, -1])
    context = BookTimeAttention().forward(enc_hs, dec_hs)
    logits = np.concatenate((context, dec_hs), axis=2)[0] @ weights["decoder.affine.W"] + weights["decoder.affine.b"]
    return len(labels) * reference.cross_entropy(logits, np.array(labels))[0]


def test_loss_is_that_of_the_plain_loops(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend, "float64")
    weights = model.state()
    total = sum(
        expected_loss(weights, source, [1, *target[:-1]], target)
        for source, target in zip(SOURCES, TARGETS, strict=True)
    )
    sources, inputs, labels, mask = batch(library)
    loss = model.forward(sources, inputs, labels, mask)
    assert tuple(loss.shape) == ()
    assert float(loss) == pytest.approx(total / sum(map(len, TARGETS)), rel=1e-12)


def test_gradients(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend, "float64")
    assert set(gradcheck(model, *batch(library))) == set(model.names)


def test_gradients_without_a_mask(make_model: MakeModel) -> None:
    library = Library(attnbackends.get_backend("numpy"))
    model = make_model(library.backend, "float64")
    *ids, _ = batch(library)
    assert set(gradcheck(model, *ids)) == set(model.names)


def test_backward_writes_gradients_where_they_are_and_anew(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    places = [*model.grads]
    ids = batch(library)
    model.forward(*ids)
    model.backward()
    first = [np.array(library.numpy(grad)) for grad in model.grads]
    model.forward(*ids)
    model.backward()
    for grad, place, once in zip(model.grads, places, first, strict=True):
        assert grad is place
        assert np.any(once)
        np.testing.assert_array_equal(library.numpy(grad), once)  # not added up


def test_dout_scales_all_gradients(make_model: MakeModel) -> None:
    library = Library(attnbackends.get_backend("numpy"))
    model = make_model(library.backend, "float64")
    model.forward(*batch(library))
    model.backward()
    once = [grad.copy() for grad in model.grads]
    model.backward(3.0)
    for grad, of_one in zip(model.grads, once, strict=True):
        np.testing.assert_allclose(grad, 3 * of_one, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 2e-6)])
def test_padding_changes_neither_loss_nor_gradients(
    library: Library, make_model: MakeModel, dtype: str, rtol: float
) -> None:
    results = []
    for extra, junk in ((0, 0), (1, 0), (6, V - 1)):
        model = make_model(library.backend, dtype)
        sources, inputs, labels, mask = batch(library)
        ids, real = library.numpy(sources).copy(), library.numpy(mask)
        ids[~real] = junk
        wider = library.array(np.pad(ids, ((0, 0), (0, extra)), constant_values=junk))
        loss = model.forward(wider, inputs, labels, library.array(np.pad(real, ((0, 0), (0, extra)))))
        model.backward()
        results.append((float(loss), [library.numpy(grad) for grad in model.grads]))
    (loss, grads), *others = results
    for other_loss, other_grads in others:
        assert other_loss == pytest.approx(loss, rel=rtol)
        for name, other, grad in zip(model.names, other_grads, grads, strict=True):
            assert largest_error(other, grad) < 10 * rtol, name


def test_labels_to_ignore_have_no_part(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    sources, inputs, labels, mask = batch(library)
    loss = float(model.forward(sources, inputs, labels, mask))
    other = library.numpy(inputs).copy()
    other[:, 1:][library.numpy(labels)[:, 1:] == IGNORE] = V - 1
    assert float(model.forward(sources, library.array(other), labels, mask)) == loss


def test_float32_comes_out_as_float32(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    loss = model.forward(*batch(library))
    model.backward()
    assert loss.dtype == library.xp.float32
    assert all(grad.dtype == library.xp.float32 for grad in model.grads)


def test_the_seed_decides_the_weights_on_every_library(library: Library) -> None:
    on_host = AttentionSeq2seq(V, 3, 5, seed=4, backend=attnbackends.get_backend("numpy"))
    model = AttentionSeq2seq(V, 3, 5, seed=4, backend=library.backend)
    other = AttentionSeq2seq(V, 3, 5, seed=5, backend=library.backend)
    for name, param, same in zip(model.names, model.params, on_host.params, strict=True):
        np.testing.assert_array_equal(library.numpy(param), same, err_msg=name)
    for name, param, different in zip(model.names, model.params, other.params, strict=True):
        assert name.endswith(".b") or not np.array_equal(library.numpy(param), library.numpy(different)), name


def test_the_environment_chooses_the_backend_unless_told(library: Library) -> None:
    assert AttentionSeq2seq(V, 3, 5).backend is attnbackends.backend
    assert AttentionSeq2seq(V, 3, 5, backend=library.backend).backend is library.backend


def test_backward_before_forward(make_model: MakeModel) -> None:
    with pytest.raises(RuntimeError, match="call forward first"):
        make_model(attnbackends.backend).backward()


def test_arguments_stay_as_they_are(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    given = batch(library)
    before = [library.numpy(array).copy() for array in given]
    params = [library.numpy(param).copy() for param in model.params]
    model.forward(*given)
    model.backward()
    model.generate(given[0], 1, 2, 4, source_mask=given[3])
    for array, old in zip((*given, *model.params), (*before, *params), strict=True):
        np.testing.assert_array_equal(library.numpy(array), old)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (lambda draw: draw.ids(V, 5), r"`ids` must have shape \(N, T\), got \(5,\)"),
        (lambda draw: draw(2, 5), "`ids` must be integers, got float64"),
    ],
)
def test_bad_sources_are_named(make_model: MakeModel, sources: Callable[[Draw], Any], message: str) -> None:
    model = make_model(attnbackends.get_backend("numpy"))
    with pytest.raises((TypeError, ValueError), match=message):
        model.encoder.forward(sources(Draw(Library(model.backend))))
