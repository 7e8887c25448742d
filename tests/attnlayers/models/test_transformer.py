"""The Transformer as a network: its loss, its gradients, padding, and answers step by step."""

from typing import Any

import numpy as np
import pytest
from support import Draw, Library

from attnbackends import get_backend
from attnlayers import gradcheck
from attnlayers.data import IGNORE
from attnlayers.models import Transformer

V, D, HEADS, HIDDEN = 11, 6, 2, 7
NUMPY = Library(get_backend("numpy"))


def make(library: Library, dtype: str = "float64", **options: Any) -> Transformer:
    return Transformer(V, D, HEADS, HIDDEN, depth=2, dtype=dtype, seed=3, backend=library.backend, **options)


def batch(library: Library) -> tuple[Any, ...]:
    """Sources, inputs, labels and mask of two pairs of different lengths."""
    sources = [[3, 9, 4, 10, 5], [6, 8, 7, 0, 0]]
    inputs, labels = [[1, 7, 3, 2], [1, 4, 2, 0]], [[7, 3, 2, IGNORE], [4, 2, IGNORE, IGNORE]]
    return tuple(library.array(x) for x in (sources, inputs, labels, np.array(sources) != 0))


def test_gradients(library: Library) -> None:
    # relu has a corner, at which differences are no gradient
    model = Transformer(V, 4, HEADS, 3, depth=1, dtype="float64", activation="gelu", backend=library.backend)
    errors = gradcheck(model, *batch(library))
    assert set(errors) == set(model.names)


def test_padding_changes_nothing(library: Library) -> None:
    model = make(library)
    sources, inputs, labels, mask = batch(library)
    loss = float(model.forward(sources, inputs, labels, mask))
    model.backward()
    grads = [library.numpy(grad).copy() for grad in model.grads]
    junk = np.where(library.numpy(mask), library.numpy(sources), V - 1)
    wider = library.array(np.pad(junk, ((0, 0), (0, 3)), constant_values=5))
    wide_mask = library.array(np.pad(library.numpy(mask), ((0, 0), (0, 3))))
    assert float(model.forward(wider, inputs, labels, wide_mask)) == pytest.approx(loss, rel=1e-12)
    model.backward()
    for name, grad, before in zip(model.names, model.grads, grads, strict=True):
        np.testing.assert_allclose(library.numpy(grad), before, rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_answer_step_by_step_is_that_of_full_passes(
    monkeypatch: pytest.MonkeyPatch, library: Library, beam_size: int
) -> None:
    model = make(library)
    sources, _, _, mask = batch(library)
    ids, weights = model.generate(sources, 1, 2, 6, source_mask=mask, beam_size=beam_size)
    found = library.numpy(ids)
    assert tuple(weights.shape) == (2, found.shape[1], 2, HEADS, 5)
    inputs = library.array(np.concatenate((np.ones((2, 1), int), found[:, :-1]), axis=1))
    seen, loss = [], model.loss.forward
    monkeypatch.setattr(model.loss, "forward", lambda logits, labels: seen.append(logits) or loss(logits, labels))
    model.forward(sources, inputs, ids, mask)
    full = np.stack([library.numpy(layer.cross_attention.attention_weights) for layer in model.decoder.stack], axis=2)
    expected = np.moveaxis(full, 3, 1)  # (N, heads, layers, L, T) -> (N, L, heads, layers, T)
    ends = [int(np.argmax(row == 2)) + 1 if 2 in row else len(row) for row in found]
    for n, end in enumerate(ends):
        np.testing.assert_allclose(
            library.numpy(weights)[n, :end], np.swapaxes(expected[n, :end], 1, 2), rtol=1e-9, atol=1e-12
        )
    if beam_size == 1:
        logits = library.numpy(seen[0])
        for n, end in enumerate(ends):
            np.testing.assert_array_equal(logits[n, :end].argmax(axis=-1), found[n, :end])


def test_dropout_is_for_training_alone() -> None:
    model, given = make(NUMPY, dropout=0.5), batch(NUMPY)
    assert float(model.forward(*given)) != float(model.forward(*given))
    model.training = False
    assert float(model.forward(*given)) == float(make(NUMPY).forward(*given))
    first, second = (model.generate(given[0], 1, 2, 4, source_mask=given[3])[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nothing_is_written_to(library: Library) -> None:
    model, given = make(library), batch(library)
    kept = [library.numpy(x).copy() for x in (*given, *model.params)]
    model.forward(*given)
    model.backward()
    model.generate(given[0], 1, 2, 3, source_mask=given[3], beam_size=2)
    for array, before in zip((*given, *model.params), kept, strict=True):
        np.testing.assert_array_equal(library.numpy(array), before)


def test_the_seed_decides(library: Library) -> None:
    one, same = make(library, "float32"), make(NUMPY, "float32")
    for name, param, other in zip(one.names, one.params, same.params, strict=True):
        np.testing.assert_array_equal(library.numpy(param), other, err_msg=name)


def test_state_goes_round() -> None:
    model, other = make(NUMPY), Transformer(V, D, HEADS, HIDDEN, depth=2, dtype="float64", backend=NUMPY.backend)
    other.load_state(model.state())
    assert float(model.forward(*batch(NUMPY))) == float(other.forward(*batch(NUMPY)))


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="`embedding_size` must be a multiple of `heads`, got 6 and 4"):
        Transformer(V, 6, 4, HIDDEN)
    with pytest.raises(ValueError, match="`depth` must be 1 or more, got 0"):
        Transformer(V, 6, 2, HIDDEN, depth=0)
    with pytest.raises(TypeError, match="`ids` must be integers"):
        make(NUMPY).forward(*(Draw(NUMPY)(2, 3) for _ in range(3)))
