"""Random numbers: NumPy's Philox, number by number, on every library."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnbackends import Uniform, get_backend
from attnlayers import Dropout
from attnlayers import functional as F

drawn = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def number(key: int, b: int, r: int, t: int, R: int, T: int) -> np.float32:
    """One number by the rule, from NumPy's generator at its place in the stream."""
    w = min(64, -(-T // 8) * 8)
    place = ((b * -(-T // w) + t // w) * R + r) * w + t % w
    eight = np.random.Generator(np.random.Philox(key=key, counter=place // 8)).random(8, dtype=np.float32)
    return eight[place % 8]


def part(size: int, most: int) -> st.SearchStrategy[slice]:
    """Some places of `size`, at most `most` of them."""
    starts = st.integers(0, size)
    return starts.flatmap(lambda a: st.integers(a, min(size, a + most)).map(lambda b: slice(a, b)))


@drawn
@given(data=st.data(), key=st.integers(0, 2**128 - 1), R=st.integers(1, 300), T=st.integers(1, 300))
def test_each_number_has_its_place_in_numpys_stream(
    library: Library, data: st.DataObject, key: int, R: int, T: int
) -> None:
    place = data.draw(st.tuples(part(2**30, 2), part(R, 3), part(T, 80)), "place")
    found = library.numpy(library.backend.uniform(key, place, R, T, like=library.array([1.0])))
    assert found.dtype == np.float32
    assert found.shape == tuple(p.stop - p.start for p in place)
    for index in np.ndindex(found.shape):
        b, r, t = (p.start + i for p, i in zip(place, index, strict=True))
        assert found[index] == number(key, b, r, t, R, T)


@drawn
@given(seed=st.integers(-(2**63), 2**64), shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=5))
def test_a_generator_is_a_stream_in_rounds_of_eight(library: Library, seed: int, shapes: list[list[int]]) -> None:
    draw, like = Uniform(library.backend, seed), library.array([1.0])
    stream = np.random.Generator(np.random.Philox(key=seed % 2**64))
    for shape in shapes:
        count = int(np.prod(shape, dtype=int))
        expected = stream.random(-(-count // 8) * 8, dtype=np.float32)[:count]
        assert np.array_equal(library.numpy(draw(tuple(shape), like)), expected.reshape(shape))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_by_itself(library: Library, again: Callable[[Any], Any]) -> None:
    layer, x = Dropout(0.5, seed=3), library.array(np.ones((5, 7)))
    layer.forward(x)
    other = again(layer)
    ours, theirs = ([library.numpy(one.forward(x)) for _ in range(3)] for one in (layer, other))
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours[0], ours[1])


def test_every_library_drops_alike(library: Library) -> None:
    x = np.ones((13, 70), np.float32)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(shape) for shape in ((2, 5, 4), (2, 70, 4), (2, 70, 3)))
    reference = Library(get_backend("numpy"))
    outs = []
    for one in (reference, library):
        dropped, _ = F.dropout(one.array(x), 0.4, Uniform(one.backend, 9))
        out, _ = F.attention(one.array(q), one.array(k), one.array(v), dropout=0.4, seed=9)
        outs.append((one.numpy(dropped), one.numpy(out)))
    assert np.array_equal(outs[0][0], outs[1][0])
    np.testing.assert_allclose(outs[0][1], outs[1][1], rtol=1e-12)


@settings(drawn, max_examples=15)
@given(
    T=st.tuples(st.integers(1, 90), st.integers(1, 200)),
    options=st.fixed_dictionaries(
        {
            "causal": st.booleans(),
            "window": st.sampled_from([None, (30, 5)]),
            "dropout": st.sampled_from([0.1, 0.5]),
            "seed": st.integers(0, 5),
        }
    ),
    cut=st.tuples(st.integers(7, 40), st.integers(20, 130)),
)
def test_what_is_dropped_does_not_depend_on_how_work_is_cut(
    library: Library, T: tuple[int, int], options: dict[str, Any], cut: tuple[int, int]
) -> None:
    d = Draw(library)
    q, k, v, dout = d(2, T[0], 4), d(2, T[1], 4), d(2, T[1], 3), d(2, T[0], 3)
    options["query_start"] = 0
    results = []
    for keep_bytes, (rows, keys) in ((2**30, (2**20, 2**20)), (2**30, cut), (0, (2**20, 2**20)), (0, cut)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(library.backend), "block_of_scores", lambda *_, cut=(rows, keys): cut)
            out, saved = F.attention(q, k, v, keep_bytes=keep_bytes, **options)
            results.append([library.numpy(x) for x in (out, *F.attention_backward(saved, dout))])
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_allclose(one, same, atol=1e-12)
