"""Beam search over tables of probabilities, whose best answer can be found by trying all of them."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import get_backend
from attnlayers.models import AttentionSeq2seq, Transformer, Translator

V, START, END = 4, 1, 2
NUMPY = Library(get_backend("numpy"))
Answer = tuple[int, ...]


class Table(Translator):
    """The probabilities (V,) of the next token, for each entry and all that came before; made up where they are none.

    Parameters
    ----------
    seed : int
    known : dict of tuple of int to array (V,), optional
    sharpness : float
        How far the logarithms that are made up lie apart.
    """

    def __init__(self, seed: int, known: dict[Answer, Any] | None = None, sharpness: float = 1.0) -> None:
        super().__init__(NUMPY.backend)
        self.seed, self.known, self.sharpness = seed, known or {}, sharpness

    def log_p(self, entry: int, before: Answer) -> np.ndarray:
        if before in self.known:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(self.known[before]))
        rng = np.random.default_rng((self.seed, entry, *before))
        scores = self.sharpness * rng.standard_normal(V)
        return np.asarray(scores - np.log(np.sum(np.exp(scores))))

    def begin(self, sources: Any, source_mask: Any, max_length: int) -> None:
        self.entries = sources[:, 0]
        self.before: list[Answer] = [()] * len(sources)
        self.steps = 0

    def step(self, last: Any) -> Any:
        if self.steps:
            self.before = [(*before, int(token)) for before, token in zip(self.before, last[:, 0], strict=True)]
        self.steps += 1
        return np.stack([self.log_p(n, before) for n, before in zip(self.entries, self.before, strict=True)])[:, None]

    def step_weights(self) -> Any:
        """What tells the rows apart: a number for all that came before."""
        return np.array([[float(hash(before) % 997)] for before in self.before])

    def reorder(self, rows: Any) -> None:
        self.before = [self.before[row] for row in rows]

    # -- by trying

    def merit(self, entry: int, answer: Answer, penalty: float) -> float:
        total = sum(self.log_p(entry, answer[:i])[token] for i, token in enumerate(answer))
        return float(total / len(answer) ** penalty)

    def best(self, entry: int, longest: int, penalty: float) -> float:
        tokens = [t for t in range(V) if t != END]
        ended = [(*head, END) for n in range(longest) for head in product(tokens, repeat=n)]
        cut_off = [*product(tokens, repeat=longest)]
        return max(self.merit(entry, answer, penalty) for answer in ended + cut_off)


def answer_of(row: Any) -> Answer:
    tokens = row.tolist()
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


def found(model: Table, longest: int, beam_size: int, penalty: float, entries: int = 1) -> list[Answer]:
    ids, weights = model.generate(
        np.arange(entries)[:, None], START, END, longest, beam_size=beam_size, length_penalty=penalty
    )
    answers = [answer_of(row) for row in ids]
    for answer, own in zip(answers, weights, strict=True):
        assert own[: len(answer), 0].tolist() == [hash(answer[:i]) % 997 for i in range(len(answer))]
    assert ids.shape[1] == max(map(len, answers))
    return answers


def ended_answers_in_the_beam(model: Table, entry: int, longest: int, beam_size: int, penalty: float) -> Answer:
    """The search of version 0.1: what has ended stays in the beam, or falls out of it."""
    held: list[tuple[float, Answer]] = [(0.0, ())]
    for _ in range(longest):
        further = [(total, answer) for total, answer in held if END in answer]
        for total, answer in held:
            if END not in answer:
                log_p = model.log_p(entry, answer)
                further += [(total + float(log_p[token]), (*answer, token)) for token in range(V)]
        held = sorted(further, key=lambda pair: -pair[0])[:beam_size]
    return max(held, key=lambda pair: pair[0] / len(pair[1]) ** penalty)[1]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_what_ends_early_is_not_lost(penalty: float) -> None:
    """Two likely ways that lead nowhere push the end out of a beam of two, were it held there."""
    way = np.full(20, 0.05)

    class Wide(Table):
        def log_p(self, entry: int, before: Answer) -> np.ndarray:
            p = np.zeros(23)
            if before == ():
                p[END], p[0] = 0.32, 0.68
            elif len(before) == 1:
                p[1], p[3] = 0.5, 0.5
            elif len(before) < 4:
                p[3:] = way
            else:
                p[END] = 1
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(p))

    model = Wide(0)
    assert found(model, 8, 2, penalty) == [(END,)]
    assert model.merit(0, (END,), penalty) == pytest.approx(-1.139, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    longest=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0, -0.5]),
    sharpness=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_a_wide_beam_finds_the_best_of_all(seed: int, longest: int, penalty: float, sharpness: float) -> None:
    model = Table(seed, sharpness=sharpness)
    answers = found(model, longest, V**longest, penalty, entries=2)
    for entry, answer in enumerate(answers):
        assert model.merit(entry, answer, penalty) == pytest.approx(model.best(entry, longest, penalty), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), beam_size=st.integers(2, 5), penalty=st.sampled_from([0.0, 1.0]))
def test_entries_do_not_meet_and_nothing_is_better_than_the_best(seed: int, beam_size: int, penalty: float) -> None:
    model = Table(seed, sharpness=2.0)
    together = found(model, 4, beam_size, penalty, entries=3)
    for entry, answer in enumerate(together):
        ids, _ = model.generate(np.array([[entry]]), START, END, 4, beam_size=beam_size, length_penalty=penalty)
        assert answer_of(ids[0]) == answer
        assert model.merit(entry, answer, penalty) <= model.best(entry, 4, penalty) + 1e-12


@cache
def duels(penalty: float, beam_size: int) -> tuple[int, int]:
    """In 300 tables: how often the search finds a better, and how often a worse answer than that of version 0.1."""
    better = worse = 0
    for seed in range(300):
        model = Table(seed, sharpness=1.5)
        (answer,) = found(model, 5, beam_size, penalty)
        merit = model.merit(0, answer, penalty)
        before = model.merit(0, ended_answers_in_the_beam(model, 0, 5, beam_size, penalty), penalty)
        better += merit > before + 1e-12
        worse += merit < before - 1e-12
    return better, worse


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [2, 3])
def test_it_finds_better_answers_more_often_than_worse_ones(penalty: float, beam_size: int) -> None:
    better, worse = duels(penalty, beam_size)
    assert better > 10 * worse


def test_the_search_stops_when_nothing_can_become_better() -> None:
    sure = {(): [0.01, 0.0, 0.98, 0.01]}
    model = Table(0, sure)
    assert found(model, 50, 3, 0.0) == [(END,)]
    assert model.steps == 1


def test_what_never_ends_is_cut_off() -> None:
    model = Table(0, {(): [0.4, 0.3, 0.0, 0.3], (0,): [0.9, 0.05, 0.0, 0.05]})
    assert found(model, 2, 2, 1.0) == [(0, 0)]


@pytest.mark.filterwarnings("error")
def test_nan_is_an_answer_too() -> None:
    model = Table(0, {(): [np.nan] * V})
    model.log_p = lambda entry, before: np.full(V, np.nan)  # type: ignore[method-assign]
    ids, _ = model.generate(np.zeros((2, 1), int), START, END, 3, beam_size=2)
    assert ids.shape[0] == 2


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("kind", ["dot", "general", "additive", "transformer"])
@pytest.mark.parametrize("masked", [False, True])
def test_no_sources_have_no_answers(library: Library, kind: str, beam_size: int, masked: bool) -> None:
    if kind == "transformer":
        model: Translator = Transformer(7, 4, 2, 5, depth=1, backend=library.backend)
    else:
        model = AttentionSeq2seq(7, 3, 4, attention=kind, backend=library.backend)
    sources = library.array(np.zeros((0, 5)), "int64")
    mask = library.array(np.zeros((0, 5), bool)) if masked else None
    ids, weights = model.generate(sources, START, END, 6, mask, beam_size=beam_size)
    assert tuple(ids.shape) == (0, ids.shape[1])
    assert tuple(weights.shape[:2]) == tuple(ids.shape)
    assert weights.shape[-1] == 5
    assert ids.dtype == sources.dtype
