"""Ids of words in every dtype that holds them, and in lists: what is computed from them is not bound by theirs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

from attnlayers import functional as F
from attnlayers.book import util

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SOME = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def corpora(draw: Any) -> tuple[list[int], int, str]:
    """Ids, the size of their vocabulary, which may be far larger, and a dtype that holds them."""
    dtype = draw(st.sampled_from(DTYPES))
    size = min(400, int(np.iinfo(dtype).max) + 1)
    return draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=12)), draw(st.integers(size, 410)), dtype


def counted(words: list[int], size: int, window: int) -> np.ndarray:
    counts = np.zeros((size, size), int)
    for i, word in enumerate(words):
        for j in range(max(0, i - window), min(len(words), i + window + 1)):
            counts[word, words[j]] += i != j
    return counts


@pytest.mark.parametrize("corpus", [np.array([15, 1], np.uint8), [15, 1], (15, 1)])
def test_two_words_that_stand_together(corpus: Any) -> None:
    counts = util.create_co_matrix(corpus, 20)
    assert np.argwhere(counts).tolist() == [[1, 15], [15, 1]]


@SOME
@given(corpus=corpora(), window=st.integers(1, 3))
def test_co_occurrences(corpus: tuple[list[int], int, str], window: int) -> None:
    words, size, dtype = corpus
    for given_words in (np.array(words, dtype), words):
        counts = util.create_co_matrix(given_words, size, window)
        np.testing.assert_array_equal(counts, counted(words, size, window))


@SOME
@given(corpus=corpora())
def test_one_hot_and_contexts(corpus: tuple[list[int], int, str]) -> None:
    words, size, dtype = corpus
    for given_words in (np.array(words, dtype), words):
        np.testing.assert_array_equal(util.convert_one_hot(given_words, size), np.eye(size, dtype=int)[words])
        if len(words) > 2:
            contexts, target = util.create_contexts_target(given_words)
            assert target.tolist() == words[1:-1]
            assert contexts.tolist() == [[a, b] for a, b in zip(words[:-2], words[2:], strict=True)]


@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "float32"])
def test_ppmi_of_counts_in_any_dtype(dtype: str) -> None:
    C = np.array([[0, 120, 3], [120, 0, 100], [3, 100, 0]], dtype)
    N, S = 446.0, np.array([123.0, 220.0, 103.0])
    with np.errstate(divide="ignore"):
        expected = np.maximum(0, np.log2(C.astype(float) * N / np.outer(S, S) + 1e-8))
    np.testing.assert_allclose(util.ppmi(C), expected, rtol=1e-6)


def test_ppmi_of_more_words_than_half_precision_counts() -> None:
    C = np.array([[0, 60000], [60000, 60000]], np.float16)
    assert util.ppmi(C)[0, 1] == pytest.approx(np.log2(60000 * 180000 / (60000 * 120000)), rel=1e-3)


@pytest.mark.parametrize("wrong", [[0.5], np.array([1.0]), np.array([True])])
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    for function in (util.create_co_matrix, util.convert_one_hot):
        with pytest.raises(TypeError, match=r"`corpus` must hold the ids of words, integers, got (float64|bool)"):
            function(wrong, 3)


@SOME
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_layers_take_ids_of_every_dtype(library: Library, dtype: str, seed: int) -> None:
    """A table of more rows than int8 counts, and as many logits."""
    if not hasattr(library.xp, dtype):
        return
    rng = np.random.default_rng(seed)
    V = 300
    ids = rng.integers(0, min(V, int(np.iinfo(dtype).max) + 1), (3, 5))
    table, logits = rng.standard_normal((V, 2)), rng.standard_normal((3, 5, V))
    found = []
    for kind in (dtype, "int64"):
        own = library.array(ids, kind)
        rows, saved_rows = F.embedding(library.array(table), own)
        loss, saved_loss = F.cross_entropy(library.array(logits), own)
        dlogits = F.cross_entropy_backward(saved_loss)
        found.append([rows, F.embedding_backward(saved_rows, rows), loss, dlogits])
    for one, same in zip(*found, strict=True):
        np.testing.assert_array_equal(library.numpy(one), library.numpy(same))
    np.testing.assert_array_equal(library.numpy(found[0][0]), table[ids])
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(library.numpy(found[0][3]), (p - np.eye(V)[ids]) / 15, atol=1e-12)
