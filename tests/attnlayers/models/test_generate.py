"""Answers of a batch against a loop over one source, one step and one argmax at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends import get_backend
from attnlayers.data import pad
from attnlayers.models import AttentionSeq2seq

V, START, END = 11, 1, 2

MakeModel = Callable[..., AttentionSeq2seq]


def random_sources(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, V, size=length).tolist() for length in rng.integers(1, 8, size=count)]


def padded(library: Library, sources: list[list[int]], extra: int = 0) -> tuple[Any, Any]:
    ids, lengths = pad(sources)
    ids = np.pad(ids, ((0, 0), (0, extra)))
    return library.array(ids), library.array(np.arange(ids.shape[1]) < lengths[:, None])


def one_by_one(model: AttentionSeq2seq, library: Library, source: list[int], end: int, most: int) -> tuple[Any, Any]:
    """Ids and weights for one source: the decoder reads all that it said so far, again for every step."""
    enc_hs = model.encoder.forward(library.array([source]))
    said, weights = [START], []
    while len(said) <= most and (len(said) == 1 or said[-1] != end):
        scores = library.numpy(model.decoder.forward(library.array([said]), enc_hs))[0, -1]
        weights.append(library.numpy(model.decoder.attention.attention_weights[-1])[0])
        best = 0
        for i in range(V):
            if scores[i] > scores[best]:
                best = i
        said.append(best)
    return said[1:], np.array(weights)


@pytest.fixture
def model(library: Library, make_model: MakeModel) -> AttentionSeq2seq:
    """In float64, so that rounding decides no argmax. It likes to end, for answers of many lengths."""
    model = make_model(library.backend, "float64", seed=2, scale=1.5)
    state = {name: value.copy() for name, value in model.state().items()}
    state["decoder.affine.b"][END] += 2
    model.load_state(state)
    return model


def test_a_batch_answers_as_one_by_one(library: Library, model: AttentionSeq2seq) -> None:
    sources, most = random_sources(16), 12
    ids, mask = padded(library, sources)
    answers, weights = (library.numpy(array) for array in model.generate(ids, START, END, most, source_mask=mask))
    lengths = set()
    for source, answer, weight in zip(sources, answers, weights, strict=True):
        expected, expected_weights = one_by_one(model, library, source, END, most)
        length = len(expected)
        lengths.add(length)
        assert answer[:length].tolist() == expected
        np.testing.assert_allclose(weight[:length, : len(source)], expected_weights, atol=1e-12)
        assert not np.any(weight[:, len(source) :])
    assert len(lengths) > 3, "the test says little if answers are of few lengths"
    assert {END in answer for answer in answers} == {True, False}


@pytest.mark.parametrize("beam_size", [1, 2])
def test_answers_without_their_weights(library: Library, model: AttentionSeq2seq, beam_size: int) -> None:
    ids, mask = padded(library, random_sources(5))
    options = {"source_mask": mask, "beam_size": beam_size}
    expected, _ = model.generate(ids, START, END, 19, **options)
    answers, weights = model.generate(ids, START, END, 19, return_weights=False, **options)
    assert weights is None
    assert np.array_equal(library.numpy(answers), library.numpy(expected))


def test_it_goes_on_until_the_longest_has_ended(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(get_backend("numpy"))
    script = np.array([[END, 8, 8, 8, 8], [7, END, END, 5, 5], [7, 7, 7, END, 9]])
    said, step = [], model.decoder.step

    def play(last: Any, *arguments: Any) -> Any:
        said.append(last[:, 0].tolist())
        return step(last, *arguments) * 0 + np.eye(V)[script[:, len(said) - 1]][:, None, :]

    monkeypatch.setattr(model.decoder, "step", play)
    answers, weights = model.generate(np.array([[3], [4], [5]]), START, END, 5)
    assert answers.tolist() == script[:, :4].tolist()
    assert weights.shape == (3, 4, 1)
    assert said == [[START] * 3, *script.T.tolist()[:3]]  # what is answered is read next


def test_weights_are_shares_of_what_is_no_padding(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    sources = random_sources(5)
    ids, mask = padded(library, sources, extra=3)
    answers, weights = model.generate(ids, START, END, 4, source_mask=mask)
    assert weights.shape == (*answers.shape, ids.shape[1])
    assert weights.dtype == library.xp.float32
    assert answers.dtype == ids.dtype
    shares, real = library.numpy(weights), library.numpy(mask)
    np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-6)
    assert np.all(shares[np.broadcast_to(~real[:, None, :], shares.shape)] == 0)
    assert np.all(shares[np.broadcast_to(real[:, None, :], shares.shape)] > 0)


@pytest.mark.parametrize("extra", [1, 5])
def test_padding_changes_no_answer(library: Library, model: AttentionSeq2seq, extra: int) -> None:
    sources = random_sources(20, seed=3)
    (ids, mask), (wide, wide_mask) = padded(library, sources), padded(library, sources, extra)
    answers, weights = model.generate(ids, START, END, 8, source_mask=mask)
    same, same_weights = model.generate(wide, START, END, 8, source_mask=wide_mask)
    np.testing.assert_array_equal(library.numpy(same), library.numpy(answers))
    np.testing.assert_allclose(
        library.numpy(same_weights)[:, :, :-extra], library.numpy(weights), rtol=1e-12, atol=1e-12
    )


def always(model: AttentionSeq2seq, token: int) -> None:
    """Make the model answer `token` whatever it reads."""
    state = {name: np.zeros_like(value) for name, value in model.state().items()}
    state["decoder.affine.b"][token] = 1
    model.load_state(state)


def test_it_stops_when_all_have_ended(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    always(model, END)
    ids, mask = padded(library, random_sources(3))
    answers = library.numpy(model.generate(ids, START, END, 50, source_mask=mask)[0])
    assert answers.shape[1] == 1 if library.backend.on_host else answers.shape[1] < 50
    assert answers.tolist() == np.full_like(answers, END).tolist()


@pytest.mark.parametrize("most", [1, 2, 33])
def test_what_does_not_end_is_cut_off(library: Library, make_model: MakeModel, most: int) -> None:
    model = make_model(library.backend)
    always(model, 7)
    ids, mask = padded(library, random_sources(3))
    answers, weights = model.generate(ids, START, END, most, source_mask=mask)
    assert library.numpy(answers).tolist() == [[7] * most] * 3
    assert tuple(weights.shape) == (3, most, ids.shape[1])


def test_it_reads_the_start_first(make_model: MakeModel) -> None:
    library = Library(get_backend("numpy"))
    model = make_model(library.backend)
    ids, mask = padded(library, random_sources(40))
    by_start = {model.generate(ids, start, END, 3, source_mask=mask)[0].tobytes() for start in range(V)}
    assert len(by_start) > 1


def test_without_a_mask_all_is_read(library: Library, make_model: MakeModel) -> None:
    model = make_model(library.backend)
    ids = library.array([[3, 4, 5], [6, 7, 8]])
    answers, weights = model.generate(ids, START, END, 5)
    same, same_weights = model.generate(ids, START, END, 5, source_mask=library.array(np.ones((2, 3), bool)))
    np.testing.assert_array_equal(library.numpy(answers), library.numpy(same))
    np.testing.assert_allclose(library.numpy(weights), library.numpy(same_weights), rtol=1e-6)


def test_training_goes_on_after_an_answer(make_model: MakeModel) -> None:
    library = Library(get_backend("numpy"))
    model, other = make_model(library.backend), make_model(library.backend)
    sources, mask = padded(library, random_sources(4))
    inputs, labels = np.array([[1, 4], [1, 5], [1, 6], [1, 7]]), np.array([[4, 2], [5, 2], [6, 2], [7, 2]])
    model.generate(sources[:3], START, END, 5, source_mask=mask[:3])
    for one in (model, other):
        one.forward(sources, inputs, labels, mask)
        one.backward()
    for grad, same in zip(model.grads, other.grads, strict=True):
        np.testing.assert_array_equal(grad, same)


@pytest.mark.parametrize("most", [0, -1])
def test_no_steps_is_an_error_that_says_so(make_model: MakeModel, most: int) -> None:
    model = make_model(get_backend("numpy"))
    with pytest.raises(ValueError, match="max_length"):
        model.generate(np.array([[3, 4]]), START, END, most)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_answer_may_have_larger_ids_than_fit_the_dtype_of_its_source(beam_size: int) -> None:
    numpy = Library(get_backend("numpy"))
    model = AttentionSeq2seq(700, 5, 7, backend=numpy.backend)
    sources = np.random.default_rng(0).integers(3, 256, size=(4, 6))
    ids, _ = model.generate(sources, START, END, 9, beam_size=beam_size)
    narrow, _ = model.generate(sources.astype(np.uint8), START, END, 9, beam_size=beam_size)
    assert ids.max() > 255
    np.testing.assert_array_equal(narrow, ids)
