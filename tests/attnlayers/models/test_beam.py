"""Beam search against all answers that there could be."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends import get_backend
from attnlayers.models import AttentionSeq2seq, Transformer, Translator

V, START, END, LONGEST = 5, 1, 2, 3
NUMPY = Library(get_backend("numpy"))


def model_of(kind: str, library: Library, seed: int) -> Translator:
    """A model whose answers are not sure."""
    if kind == "transformer":
        model: Translator = Transformer(V, 4, 2, 5, depth=1, seed=seed, backend=library.backend)
    else:
        model = AttentionSeq2seq(V, 3, 4, attention=kind, seed=seed, backend=library.backend)
    return model


def log_probabilities(model: Translator, source: Any, mask: Any, answers: list[tuple[int, ...]]) -> np.ndarray:
    """Of many answers to one source (1, T), in one full pass."""
    rows = np.array([[*answer, *[END] * (LONGEST - len(answer))] for answer in answers])
    counts = np.arange(LONGEST) < np.array([len(answer) for answer in answers])[:, None]
    inputs = np.concatenate((np.full_like(rows[:, :1], START), rows[:, :-1]), axis=1)
    many = [np.repeat(x, len(answers), axis=0) for x in (source, mask)]
    model.forward(many[0], inputs, rows, many[1])
    wanted = -len(rows) * rows.shape[1] * model.loss.backward()  # one at the label, less the probabilities
    each = np.log(1 - np.take_along_axis(wanted, rows[..., None], axis=2)[..., 0])
    return np.sum(np.where(counts, each, 0), axis=1)


def all_answers() -> list[tuple[int, ...]]:
    """Every answer that ends, or is cut off."""
    tokens = [t for t in range(V) if t != END]
    ended = [(*head, END) for n in range(LONGEST) for head in product(tokens, repeat=n)]
    return ended + list(product(tokens, repeat=LONGEST))


@pytest.mark.parametrize("kind", ["dot", "general", "additive", "transformer"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all(kind: str, penalty: float) -> None:
    sources, mask = np.array([[3, 4, 3], [4, 0, 0]]), np.array([[True] * 3, [True, False, False]])
    found_other = 0
    for seed in range(3):
        model = model_of(kind, NUMPY, seed)
        ids, _ = model.generate(sources, START, END, LONGEST, mask, beam_size=V**LONGEST, length_penalty=penalty)
        greedy, _ = model.generate(sources, START, END, LONGEST, mask)
        for n in range(2):
            answers = all_answers()
            sums = log_probabilities(model, sources[n : n + 1], mask[n : n + 1], answers)
            merits = {answer: float(sums[i]) / len(answer) ** penalty for i, answer in enumerate(answers)}
            best = max(merits, key=lambda answer: merits[answer])
            row = ids[n].tolist()
            answer = tuple(row[: row.index(END) + 1] if END in row else row)
            assert merits[answer] == pytest.approx(merits[best], rel=1e-5)
            found_other += tuple(greedy[n, : len(best)].tolist()) != best
    if kind != "transformer":
        assert found_other, "the test says little if the most probable token is always right"


@pytest.mark.parametrize("kind", ["additive", "transformer"])
def test_entries_do_not_meet(library: Library, kind: str) -> None:
    model = model_of(kind, library, 5)
    sources, mask = np.array([[3, 4, 3], [4, 0, 0], [3, 3, 0]]), np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0]]) == 1
    ids, weights = model.generate(library.array(sources), START, END, 6, library.array(mask), beam_size=3)
    for n in range(3):
        length = int(mask[n].sum())
        alone, own = model.generate(library.array(sources[n : n + 1, :length]), START, END, 6, beam_size=3)
        answer = library.numpy(alone)[0].tolist()
        end = answer.index(END) + 1 if END in answer else len(answer)
        assert library.numpy(ids)[n, :end].tolist() == answer[:end]
        np.testing.assert_allclose(
            library.numpy(weights)[n, :end, ..., :length], library.numpy(own)[0, :end], rtol=1e-4, atol=1e-6
        )


def test_weights_belong_to_the_answer_that_was_chosen() -> None:
    """They are those of a full pass over that answer, not of a beam that was left."""
    sources = np.array([[3, 4, 3, 4]])
    for seed in range(5):
        model = AttentionSeq2seq(V, 3, 4, seed=seed, backend=NUMPY.backend)
        ids, weights = model.generate(sources, START, END, 6, beam_size=4)
        inputs = np.concatenate(([[START]], ids[:, :-1]), axis=1)
        model.forward(sources, inputs, ids)
        full = np.stack(model.decoder.attention.attention_weights or [], axis=1)
        row = ids[0].tolist()
        end = row.index(END) + 1 if END in row else len(row)
        np.testing.assert_allclose(weights[0, :end], full[0, :end], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("beam_size", 0), ("beam_size", -1)])
def test_bad_sizes_are_named(name: str, value: int) -> None:
    model = model_of("dot", NUMPY, 0)
    with pytest.raises(ValueError, match=f"`{name}` must be 1 or more, got {value}"):
        model.generate(np.array([[3]]), START, END, 3, **{name: value})


def test_an_unknown_attention() -> None:
    with pytest.raises(ValueError, match="`attention` must be dot, general or additive, got 'sum'"):
        AttentionSeq2seq(V, 3, 4, attention="sum")
