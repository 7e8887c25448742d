"""A batch that ranks share: gradients, losses and what is dropped are those of the whole batch."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st

from attnbackends import Uniform, share_of_batch
from attnlayers import functional as F
from attnlayers.data import PairDataset, Vocabulary
from attnlayers.models import AttentionSeq2seq, Transformer, Translator

LIBRARIES = ["numpy", "array_api_strict", "torch", "cupy"]


def model_of(kind: str, name: str, vocab_size: int) -> Translator:
    options: Any = {"dropout": 0.4, "label_smoothing": 0.1, "seed": 3, "backend": library_of(name).backend}
    options["dtype"] = "float64"
    if kind == "transformer":
        return Transformer(vocab_size, 6, 2, 10, 2, **options)
    return AttentionSeq2seq(vocab_size, 5, 7, **options)


def gradients(model: Translator, batch: Any) -> tuple[list[np.ndarray], float]:
    """Gradients of the sum over tokens, and that sum."""
    model.reseed(5, 9)
    with share_of_batch(batch.first, len(batch.indices), batch.whole):
        loss = model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask)
        model.backward()
    to_numpy = model.backend.to_numpy
    return [to_numpy(grad) * batch.num_tokens for grad in model.grads], float(loss) * batch.num_tokens


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("kind", ["seq2seq", "transformer"])
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 7), max_size=3).map(sorted), seed=st.integers(0, 2**16))
def test_parts_add_up_to_the_whole(name: str, kind: str, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice([*"abc"], rng.integers(1, 12))) for _ in range(7)]
    pairs = [(word, word[::-1]) for word in words]
    vocabulary = Vocabulary.from_pairs(pairs, "character")
    model = model_of(kind, name, len(vocabulary))
    data = PairDataset(pairs, vocabulary).to(model.backend.asarray)
    indices = np.arange(7)
    whole = data.batch(indices)
    expected, loss = gradients(model, whole)
    edges = [0, *cuts, 7]
    parts = [data.batch(indices, slice(a, b)) for a, b in pairwise(edges)]
    assert sum(part.num_tokens for part in parts) == whole.num_tokens == whole.whole_tokens
    assert {part.whole_tokens for part in parts} == {whole.num_tokens}
    found = [gradients(model, part) for part in parts]
    assert sum(own for _, own in found) == pytest.approx(loss, rel=1e-12)
    for i, grad in enumerate(expected):
        np.testing.assert_allclose(sum(own[i] for own, _ in found), grad, rtol=1e-9, atol=1e-11, err_msg=model.names[i])


@pytest.mark.parametrize("name", LIBRARIES)
@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(1, 7)),
    cut=st.integers(0, 9),
    calls=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_numbers_are_those_of_the_rows(name: str, shape: tuple[int, int, int], cut: int, calls: int, seed: int) -> None:
    backend = library_of(name).backend
    rows = shape[0]
    cut = min(cut, rows)
    draw = Uniform(backend, seed)
    whole = [backend.to_numpy(draw(shape)) for _ in range(calls)]
    for part in (slice(0, cut), slice(cut, rows)):
        draw = Uniform(backend, seed)
        with share_of_batch(part.start, part.stop - part.start, rows):
            for expected in whole:
                own = backend.to_numpy(draw((part.stop - part.start, *shape[1:])))
                np.testing.assert_array_equal(own, expected[part])


@pytest.mark.parametrize("name", LIBRARIES)
@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 5), heads=st.integers(1, 3), t=st.integers(1, 9), t_k=st.integers(1, 80),
    cut=st.integers(0, 5), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_attention_drops_what_it_drops_of_the_whole(
    name: str, n: int, heads: int, t: int, t_k: int, cut: int, seed: int
) -> None:
    """Backward too, which draws anew and may come after the share has ended."""
    library = library_of(name)
    rng = np.random.default_rng(seed)
    q, k, v, dout = (rng.standard_normal((n, heads, T, 3)) for T in (t, t_k, t_k, t))

    def run(part: slice) -> list[np.ndarray]:
        with share_of_batch(part.start, part.stop - part.start, n):
            out, saved = F.attention(*(library.array(x[part]) for x in (q, k, v)), dropout=0.5, seed=seed)
        return [library.numpy(x) for x in (out, *F.attention_backward(saved, library.array(dout[part])))]

    whole = run(slice(0, n))
    cut = min(cut, n)
    for part in (slice(0, cut), slice(cut, n)):
        for own, of_whole in zip(run(part), whole, strict=True):
            np.testing.assert_allclose(own, of_whole[part], rtol=1e-9, atol=1e-12)
