"""Integers that a caller gives: of Python, of NumPy, in arrays, however large; and what is none is refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnlayers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Dropout,
    Embedding,
    FeedForward,
    Initializer,
    KVCache,
    LayerNorm,
    LearnedPositions,
    MultiHeadAttention,
    RMSNorm,
    SinusoidalPositions,
    TimeAdditiveAttention,
    TimeBiLSTM,
    TimeGeneralAttention,
    TimeGRU,
    TimeLocalAttention,
    TimeLSTM,
    TimeRNN,
    TransformerEncoder,
    TransformerEncoderLayer,
    gradcheck,
)
from attnlayers import functional as F
from attnlayers.models import AttentionSeq2seq, Transformer

NUMPY = library_of("numpy")
KINDS = ["int8", "uint8", "int16", "uint32", "int64", "uint64"]


def means(library: Library, T_k: int = 4, **options: Any) -> list[float]:
    """What each of as many queries sees of the values 0, 1, 2, …, in the mean; 0 where it sees nothing."""
    q = library.array(np.zeros((1, T_k, 1)))
    out, _ = F.attention(q, q, library.array(np.arange(float(T_k)).reshape(1, T_k, 1)), **options)
    return library.numpy(out).ravel().tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": (np.uint64(1), 0)}, [0, 0.5, 1.5, 2.5]),
        ({"window": (1, np.int8(0))}, [0, 0.5, 1.5, 2.5]),
        ({"window": (None, 2**63 - 1)}, [1.5] * 4),
        ({"window": (10**30, 10**30)}, [1.5] * 4),
        ({"window": (2**63 - 1, 0)}, [0, 0.5, 1, 1.5]),
        ({"window": (np.uint64(2**64 - 1), 0)}, [0, 0.5, 1, 1.5]),
        ({"window": (4, None), "query_start": 4}, [1.5, 2, 2.5, 3]),
        ({"window": (None, 5), "query_start": -5}, [0, 0.5, 1, 1.5]),
        ({"causal": True, "query_start": 2**61}, [1.5] * 4),
        ({"window": (1, 0), "query_start": 2**61}, [0] * 4),
        ({"window": (2**61, 0), "query_start": 2**61}, [1.5, 2, 2.5, 3]),
        ({"window": (2**61 - 1, 0), "query_start": [2**61]}, [2, 2.5, 3, 0]),
        ({"window": (2**70, 0), "query_start": -(2**61)}, [0] * 4),
        ({"window": (0, 2**61), "query_start": -(2**61)}, [0, 0.5, 1, 1.5]),
        ({"causal": True, "query_start": np.array(1, np.uint8)}, [0.5, 1, 1.5, 1.5]),
        ({"key_lengths": np.array([2], np.uint8)}, [0.5] * 4),
    ],
)
@pytest.mark.parametrize("keep_bytes", [0, np.int64(2**20)])
def test_large_and_typed_integers_mean_what_they_are(
    library: Library, options: dict[str, Any], expected: list[float], keep_bytes: int
) -> None:
    assert means(library, keep_bytes=keep_bytes, **options) == pytest.approx(expected)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"window": (1.0, 0)}, TypeError, "`window` must be an integer, got float 1.0"),
    ({"window": (1, 0.0)}, TypeError, "`window` must be an integer, got float 0.0"),
    ({"window": (True, 0)}, TypeError, "`window` must be an integer, got bool True"),
    ({"window": ("1", 0)}, TypeError, "`window` must be an integer, got str '1'"),
    ({"window": (-1, 0)}, ValueError, "`window` must be 0 or more, got -1"),
    ({"window": 3}, TypeError, "`window` must be a pair of numbers of keys"),
    ({"window": (1, 0, 2)}, TypeError, "`window` must be a pair of numbers of keys"),
    ({"query_start": "nonsense"}, ValueError, "`query_start` must be 'start', 'end' or integers, got 'nonsense'"),
    ({"query_start": 1.0}, TypeError, "`query_start` must be an integer, got float 1.0"),
    ({"query_start": [0.5]}, TypeError, "`query_start` must be an integer, got float 0.5"),
    ({"query_start": [True]}, TypeError, "`query_start` must be an integer, got bool True"),
    ({"query_start": np.array([True])}, TypeError, "`query_start` must be integers, got bool"),
    ({"query_start": 2**63 - 1}, ValueError, r"`query_start` must lie within 2\*\*61 of 0, got 9223372036854775807"),
    ({"query_start": -(10**30)}, ValueError, r"`query_start` must lie within 2\*\*61 of 0, got -1000"),
    ({"key_lengths": [4.0]}, TypeError, "`key_lengths` must be an integer, got float 4.0"),
    ({"key_lengths": [2**64]}, ValueError, r"`key_lengths` must lie within 2\*\*61 of 0"),
    ({"query_offsets": [0, 4.0]}, TypeError, "`query_offsets` must be an integer, got float 4.0"),
    ({"query_offsets": [0, 4], "key_offsets": [0, True]}, TypeError, "`key_offsets` must be an integer, got bool True"),
    ({"query_offsets": np.array([0.0, 4.0])}, TypeError, "`query_offsets` must be integers, got float64"),
    ({"keep_bytes": 1e6}, TypeError, "`keep_bytes` must be an integer, got float 1000000.0"),
    ({"keep_bytes": -1}, ValueError, "`keep_bytes` must be 0 or more, got -1"),
    ({"dropout": 0.5, "seed": 3.0}, TypeError, "`seed` must be an integer, got float 3.0"),
    ({"dropout": 0.5}, ValueError, "`dropout` needs a `seed`, another one for each call"),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_what_is_no_integer_is_refused_by_name(
    library: Library, options: dict[str, Any], error: type[Exception], message: str, causal: bool
) -> None:
    with pytest.raises(error, match=message):
        means(library, causal=causal, **options)


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(-(2**61), 2**61) | st.integers(-9, 9),
    sides=st.tuples(*[st.none() | st.integers(0, 2**66) | st.integers(0, 9)] * 2),
    near=st.booleans(),
    kind=st.sampled_from(KINDS),
    T_k=st.integers(1, 5),
    keep_bytes=st.sampled_from([0, 2**20]),
)
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "cupy"])
def test_any_window_at_any_position(
    name: str,
    start: int,
    sides: tuple[int | None, int | None],
    near: bool,
    kind: str,
    T_k: int,
    keep_bytes: int,
) -> None:
    """In Python's integers, which have no end; `near` draws sides that reach to about the first key."""
    library = library_of(name)
    left, right = (None if side is None else side % 5 + abs(start) if near else side for side in sides)
    seen = [
        [j for j in range(T_k) if (left is None or j >= start + i - left) and (right is None or j <= start + i + right)]
        for i in range(T_k)
    ]
    expected = [float(np.mean(keys)) if keys else 0.0 for keys in seen]
    limits = np.iinfo(kind)

    def typed(value: int | None) -> Any:
        return value if value is None or not limits.min <= value <= limits.max else np.dtype(kind).type(value)

    found = means(library, T_k, window=(typed(left), typed(right)), query_start=typed(start), keep_bytes=keep_bytes)
    assert found == pytest.approx(expected)


def rotated(n: Any) -> Any:
    return F.rotary(np.ones((1, 6)), np.arange(1), size=n)[0]


def dropped(n: Any) -> Any:
    q = np.ones((1, 5, 2))
    return F.attention(q, q, q, dropout=0.5, seed=n)[0]


def reseeded(n: Any) -> Any:
    return Dropout(0.5, seed=n).forward(np.ones((5, 7)))


def local(n: Any) -> Any:
    ones = np.ones((1, 5, 2))
    return F.local_attention(ones, ones, ones, np.ones((1, 5)), width=n)[0]


def ignored(n: Any) -> Any:
    return F.cross_entropy(np.eye(5), np.arange(5), ignore_label=n)[0]


def cache(n: Any, name: str) -> Any:
    sizes = {"batch_size": 1, "key_heads": 1, "capacity": 1, "head_size": 1, "value_size": 1}
    return repr(KVCache(**(sizes | {name: n}), like=np.ones(1)))


def answers(n: Any, name: str) -> Any:
    model = Transformer(5, 4, 1, 4, 1, backend=NUMPY.backend)
    given = {"start_id": 1, "end_id": 2, "max_length": 4, "beam_size": 2}
    return model.generate(np.array([[3, 4, 2]]), **(given | {name: n}))[0]


def made(layer: Any) -> Any:
    return np.concatenate([np.ravel(param) for param in layer.params])


def sized(kind: Any, n: Any, name: str, **sizes: int) -> Any:
    return made(kind.create(**(sizes | {name: n})))


# Where an integer goes, by the name it must be refused under; each works with 2.
PLACES: dict[str, Callable[[Any], Any]] = {
    "heads: alibi_slopes": F.alibi_slopes,
    "size: rotary": rotated,
    "seed: attention": dropped,
    "seed: Dropout": reseeded,
    "seed: create": lambda n: made(FeedForward.create(2, 3, seed=n)),
    "seed: Initializer": lambda n: made(FeedForward.create(2, 3, initializer=Initializer(n))),
    "seed: gradcheck": lambda n: gradcheck(LayerNorm(np.ones(3), np.ones(3)), np.eye(3), seed=n),
    "width: local_attention": local,
    "ignore_label: cross_entropy": ignored,
    **{f"{name}: KVCache": lambda n, name=name: cache(n, name)
       for name in ("batch_size", "key_heads", "capacity", "head_size", "value_size")},
    **{f"{name}: generate": lambda n, name=name: answers(n, name)
       for name in ("start_id", "end_id", "max_length", "beam_size")},
    "start: LearnedPositions": lambda n: LearnedPositions(np.eye(5)).forward(np.ones((1, 2, 5)), start=n),
    "start: SinusoidalPositions": lambda n: SinusoidalPositions().forward(np.ones((1, 2, 5)), start=n),
    **{f"{name}: MultiHeadAttention": lambda n, name=name: sized(MultiHeadAttention, n, name, embedding_size=4, heads=2)
       for name in ("embedding_size", "heads", "key_heads", "context_size", "seed")},
    **{f"{name}: FeedForward": lambda n, name=name: sized(FeedForward, n, name, embedding_size=4, hidden_size=3)
       for name in ("embedding_size", "hidden_size")},
    **{f"{name}: {kind.__name__}": lambda n, name=name, kind=kind: sized(kind, n, name, enc_size=3, dec_size=5)
       for kind in (TimeGeneralAttention, TimeAdditiveAttention, TimeLocalAttention)
       for name in ("enc_size", "dec_size")},
    "attention_size: TimeAdditiveAttention": lambda n: sized(
        TimeAdditiveAttention, n, "attention_size", enc_size=3, dec_size=5),
    "width: TimeLocalAttention": lambda n: TimeLocalAttention.create(3, 5, width=n).width,
    **{f"input_size: {kind.__name__}": lambda n, kind=kind: sized(kind, n, "input_size")
       for kind in (LayerNorm, RMSNorm)},
    **{f"{name}: {kind.__name__}": lambda n, name=name, kind=kind: sized(kind, n, name, input_size=3, hidden_size=5)
       for kind in (RNN, LSTM, GRU, TimeRNN, TimeLSTM, TimeGRU, TimeBiLSTM) for name in ("input_size", "hidden_size")},
    **{f"{name}: Affine": lambda n, name=name: sized(Affine, n, name, input_size=3, output_size=5)
       for name in ("input_size", "output_size")},
    **{f"{name}: Embedding": lambda n, name=name: sized(Embedding, n, name, vocab_size=3, embedding_size=5)
       for name in ("vocab_size", "embedding_size")},
    **{f"{name}: LearnedPositions": lambda n, name=name: sized(
        LearnedPositions, n, name, max_length=3, embedding_size=3)
       for name in ("max_length", "embedding_size")},
    "heads: TransformerEncoderLayer": lambda n: made(TransformerEncoderLayer.create(4, n, 3)),
    "depth: TransformerEncoder": lambda n: made(TransformerEncoder.create(n, 4, 2, 3)),
    **{f"{name}: Transformer": lambda n, name=name: made(
        Transformer(**({"vocab_size": 5, "embedding_size": 4, "heads": 2, "hidden_size": 3, "depth": 1} | {name: n})))
       for name in ("vocab_size", "embedding_size", "heads", "hidden_size", "depth", "seed")},
    **{f"{name}: AttentionSeq2seq": lambda n, name=name: made(
        AttentionSeq2seq(**({"vocab_size": 5, "embedding_size": 4, "hidden_size": 3} | {name: n})))
       for name in ("vocab_size", "embedding_size", "hidden_size", "seed")},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_integer_of_the_library_may_be_of_any_kind(place: str) -> None:
    call = PLACES[place]
    expected = call(2)
    for kind in KINDS:
        np.testing.assert_array_equal(call(np.dtype(kind).type(2)), expected)
        np.testing.assert_array_equal(call(np.array(2, kind)), expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "wrong", [2.0, "2", True, np.True_, np.float32(2), np.array(2.0), np.array([2]), np.array(True)], ids=repr
)
def test_every_integer_of_the_library_is_refused_by_name_if_it_is_none(place: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"`{place.partition(':')[0]}` must be an integer"):
        PLACES[place](wrong)


def test_integer_arrays_of_every_library(library: Library) -> None:
    start = library.array(np.array(1, "int32"))
    assert means(library, causal=True, query_start=start) == means(library, causal=True, query_start=1)
    layer, x = LearnedPositions(library.array(np.eye(5))), Draw(library)(1, 2, 5)
    found, expected = (library.numpy(layer.forward(x, start=s)) for s in (start, 1))
    np.testing.assert_array_equal(found, expected)


def test_a_width_beyond_all_numbers(library: Library) -> None:
    d = Draw(library)
    arguments = d(1, 2, 3), d(1, 5, 3), d(1, 5, 2), library.array(np.array([[0.0, 4.0]]))
    found, plain = F.local_attention(*arguments, width=10**400)[0], F.attention(*arguments[:3], scale=1.0)[0]
    np.testing.assert_allclose(library.numpy(found), library.numpy(plain), rtol=1e-12)
