"""The helpers of the book's ``common.util``.

What counts words works on the host and gives NumPy arrays in every mode: scripts use them as keys, hand them to
NumPy and to matplotlib, and move to the device themselves what belongs there.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from attnbackends import Array

from ..training.optimizers import clip_grads as clip_in_place
from ._arrays import note, to_cuda, to_host
from ._data import Rows, home, pick
from .np import GPU, np

__all__ = [
    "GPU",
    "analogy",
    "clip_grads",
    "convert_one_hot",
    "cos_similarity",
    "create_co_matrix",
    "create_contexts_target",
    "eval_perplexity",
    "eval_seq2seq",
    "most_similar",
    "normalize",
    "np",
    "os",
    "ppmi",
    "preprocess",
    "sys",
    "to_cpu",
    "to_gpu",
]

Words = Mapping[str, int]
Names = Mapping[int, str]

ROWS = 64
"""Rows of the co-occurrence matrix that `ppmi` works on at a time."""


def preprocess(text: str) -> tuple[numpy.ndarray, dict[str, int], dict[int, str]]:
    """Words of a text as ids in the order in which they first occur; a full stop is a word."""
    words = text.lower().replace(".", " .").split(" ")
    word_to_id: dict[str, int] = {}
    corpus = numpy.array([word_to_id.setdefault(word, len(word_to_id)) for word in words])
    return corpus, word_to_id, {number: word for word, number in word_to_id.items()}


def cos_similarity(x: Any, y: Any, eps: float = 1e-8) -> Any:
    """Cosine of the angle between x (D,) and y (D,)."""
    x, y = to_host(x), to_host(y)
    length_x, length_y = (numpy.sqrt(numpy.sum(vector**2)) + eps for vector in (x, y))
    return numpy.dot(x / length_x, y / length_y)


def most_similar(query: str, word_to_id: Words, id_to_word: Names, word_matrix: Any, top: int = 5) -> None:
    """Print the words whose vectors, rows of word_matrix (V, D), point closest to where the query's does."""
    if query not in word_to_id:
        print(f"{query} is not found")
        return
    print(f"\n[query] {query}")
    matrix = to_host(word_matrix)
    lengths = numpy.sqrt(numpy.sum(matrix**2, axis=1)) + 1e-8
    directions = matrix / lengths[:, None]
    similarity = numpy.vecdot(directions, directions[word_to_id[query]]).astype(numpy.float64)
    _print_best(similarity, id_to_word, {query}, top)


def analogy(
    a: str, b: str, c: str, word_to_id: Words, id_to_word: Names, word_matrix: Any, top: int = 5, answer: Any = None
) -> None:
    """Print the words that are to c what b is to a, by the rows of word_matrix (V, D)."""
    for word in (a, b, c):
        if word not in word_to_id:
            print(f"{word} is not found")
            return
    print(f"\n[analogy] {a}:{b} = {c}:?")
    matrix = to_host(word_matrix)
    a_vec, b_vec, c_vec = (matrix[word_to_id[word]] for word in (a, b, c))
    query = normalize(b_vec - a_vec + c_vec)
    similarity = numpy.dot(matrix, query)
    if answer is not None:
        print(f"==>{answer}:{numpy.dot(matrix[word_to_id[answer]], query)}")
    _print_best(similarity, id_to_word, {a, b, c}, top)


def _print_best(similarity: numpy.ndarray, id_to_word: Names, left_out: set[str], top: int) -> None:
    shown = 0
    for i in (-1 * similarity).argsort():
        if shown >= top:
            return
        if id_to_word[int(i)] not in left_out and not numpy.isnan(similarity[i]):
            print(f" {id_to_word[int(i)]}: {similarity[i]}")
            shown += 1


def convert_one_hot(corpus: Any, vocab_size: int) -> numpy.ndarray:
    """ids (N,) or (N, C) -> int32 (N, V) or (N, C, V), 1 at each id."""
    corpus = _words(corpus, vocab_size)
    one_hot = numpy.zeros((*corpus.shape, vocab_size), dtype=numpy.int32)
    numpy.put_along_axis(one_hot, corpus[..., None], 1, axis=-1)
    return one_hot


def create_co_matrix(corpus: Any, vocab_size: int, window_size: int = 1) -> numpy.ndarray:
    """How often two words stand at most `window_size` apart: int32 (V, V)."""
    corpus = _words(corpus, vocab_size)
    counts = numpy.zeros((vocab_size, vocab_size), dtype=numpy.int32)
    for distance in range(1, min(window_size, len(corpus) - 1) + 1):
        left, right = corpus[:-distance], corpus[distance:]
        numpy.add.at(counts.reshape(-1), left * vocab_size + right, 1)
        numpy.add.at(counts.reshape(-1), right * vocab_size + left, 1)
    return counts


def ppmi(C: Any, verbose: bool = False, eps: float = 1e-8) -> numpy.ndarray:
    """Positive pointwise mutual information of co-occurrences C (V, V): float32 (V, V)."""
    C = numpy.asarray(to_host(C))
    M = numpy.zeros(C.shape, dtype=numpy.float32)
    S = numpy.asarray(numpy.sum(C, axis=0, dtype=numpy.float64))  # in which no product of counts overflows
    N = numpy.sum(S)
    for start in range(0, len(C), ROWS):
        rows = slice(start, start + ROWS)
        with numpy.errstate(all="ignore"):  # a word that never occurs
            pmi = numpy.log2(C[rows] * N / (S[None, :] * S[rows, None]) + eps)
        M[rows] = numpy.where(pmi > 0, pmi, 0)
        if verbose:
            print(f"{100 * min(start + ROWS, len(C)) / len(C):.1f}% done")
    return M


def create_contexts_target(corpus: Any, window_size: int = 1) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The words around each word, (N, 2 * window_size), and the word itself, (N,)."""
    corpus = numpy.asarray(to_host(corpus))
    if len(corpus) <= 2 * window_size:
        raise ValueError(
            f"the corpus must have more than 2 * window_size = {2 * window_size} words, got {len(corpus)}: "
            "use more text or a smaller window"
        )
    windows = numpy.lib.stride_tricks.sliding_window_view(corpus, 2 * window_size + 1)
    return numpy.delete(windows, window_size, axis=1), windows[:, window_size].copy()


def to_cpu(x: Any) -> numpy.ndarray:
    """`x` as an array of NumPy."""
    return numpy.asarray(to_host(x))


def to_gpu(x: Any) -> Array:
    """`x` as an array of CuPy."""
    return to_cuda(x)


def clip_grads(grads: Sequence[Array], max_norm: float) -> None:
    """Scale all gradients down, in place, so that their common norm is at most `max_norm`."""
    clip_in_place(grads, max_norm)


def eval_perplexity(model: Any, corpus: Any, batch_size: int = 10, time_size: int = 35) -> Any:
    """The perplexity of a language model on a corpus of ids (num,)."""
    print("evaluating perplexity ...")
    corpus_size = len(corpus)
    max_iters = (corpus_size - 1) // (batch_size * time_size)
    if max_iters == 0:
        raise ValueError(
            f"the corpus must have more than batch_size * time_size = {batch_size * time_size} words, "
            f"got {corpus_size}: use more text or smaller batches"
        )
    starts = numpy.arange(batch_size)[:, None] * ((corpus_size - 1) // batch_size) + numpy.arange(time_size)
    words = Rows(model, corpus).rows
    total: Any = 0.0
    for iters in range(max_iters):
        places = starts + iters * time_size
        xs, ts = (pick(words, (places + ahead) % corpus_size) for ahead in (0, 1))
        try:
            loss = model.forward(xs, ts, train_flg=False)
        except TypeError:  # a model without dropout
            loss = model.forward(xs, ts)
        total = total + loss
        sys.stdout.write(f"\r{iters} / {max_iters}")
        sys.stdout.flush()
    print()
    return numpy.exp(float(total) / max_iters)


def eval_seq2seq(
    model: Any, question: Any, correct: Any, id_to_char: Names, verbose: bool = False, is_reverse: bool = False
) -> int:
    """1 if the model answers one question (1, T) with `correct`, whose first id begins the answer; else 0."""
    asked, right = to_host(question).flatten(), to_host(correct).flatten()
    guess: list[Any] = []
    # One piece of work: a single question has nothing to share out, and what is in it need not try.
    home(model).map(lambda ids: guess.extend(model.generate(ids, right[0], len(right) - 1)), [_moved(model, question)])
    read = (asked.tolist(), right[1:].tolist(), map(int, guess))
    texts = ["".join([id_to_char[c] for c in ids]) for ids in read]
    if verbose:
        if is_reverse:
            texts[0] = texts[0][::-1]
        _print_answer(*texts)
    return int(texts[1] == texts[2])


def _print_answer(question: str, correct: str, guess: str) -> None:
    right = correct == guess
    mark = "\033[92m☑\033[0m" if right else "\033[91m☒\033[0m"
    if os.name == "nt":
        mark = "O" if right else "X"
    print(f"Q {question}\nT {correct}\n{mark} {guess}\n---")


def _moved(model: Any, ids: Any) -> Array:
    backend = home(model)
    if backend.on_host or not isinstance(ids, numpy.ndarray):
        return ids
    moved = backend.asarray(ids)
    note(moved, ids)
    return moved


def normalize(x: Any) -> Any:
    """x (D,) or each row of x (N, D) at length 1, in place."""
    if x.ndim == 2:
        x /= numpy.sqrt((x * x).sum(1)).reshape(-1, 1)
    elif x.ndim == 1:
        x /= numpy.sqrt((x * x).sum())
    return x


def _words(corpus: Any, vocab_size: int) -> numpy.ndarray:
    """The ids of a corpus in the dtype of an index: what is computed from them must not be bound by their own."""
    words = numpy.asarray(to_host(corpus))
    if words.size and words.dtype.kind not in "iu":
        raise TypeError(f"`corpus` must hold the ids of words, integers, got {words.dtype}")
    if words.size and (words.min() < 0 or words.max() >= vocab_size):
        outside = words.min() if words.min() < 0 else words.max()
        raise IndexError(f"the ids of `corpus` must lie in 0 .. {vocab_size - 1}, the vocabulary, got {outside}")
    return numpy.asarray(words, dtype=numpy.intp)
