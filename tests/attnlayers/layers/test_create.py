"""`create`: every layer with parameters has it, and what it makes has right gradients."""

import re
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from support import Draw, Library

from attnlayers import Affine, Embedding, Initializer, LearnedPositions, TimeLSTM, gradcheck, layers

N, T_DEC, T, D, H, A, HEADS, V, DEPTH = 2, 3, 5, 12, 7, 11, 3, 13, 2
Sizes = tuple[int, ...]
Inputs = Callable[[Draw], tuple[Any, ...]]


def steps(d: Draw) -> tuple[Any, ...]:
    return (d(N, T, D),)


def both(d: Draw) -> tuple[Any, ...]:
    return d(N, T, H), d(N, T_DEC, D)


def one(d: Draw) -> tuple[Any, ...]:
    return d(N, T, H), d(N, D)


def decoder(d: Draw) -> tuple[Any, ...]:
    return d(N, T_DEC, D), d(N, T, D)


# The sizes that `create` takes, and what forward does.
CREATED: dict[str, tuple[Sizes, Inputs]] = {
    "AdditiveAttention": ((H, D), one),
    "Affine": ((D, H), steps),
    "Embedding": ((V, D), lambda d: (d.ids(V, N),)),
    "FeedForward": ((D, A), steps),
    "GRU": ((D, H), lambda d: (d(N, D), d(N, H))),
    "GeneralAttention": ((H, D), one),
    "LSTM": ((D, H), lambda d: (d(N, D), d(N, H), d(N, H))),
    "LayerNorm": ((D,), steps),
    "LearnedPositions": ((A, D), steps),
    "LocalAttention": ((H, D), one),
    "MultiHeadAttention": ((D, HEADS), steps),
    "RMSNorm": ((D,), steps),
    "RNN": ((D, H), lambda d: (d(N, D), d(N, H))),
    "TimeAdditiveAttention": ((H, D, A), both),
    "TimeAffine": ((D, H), steps),
    "TimeBiLSTM": ((D, H), steps),
    "TimeEmbedding": ((V, D), lambda d: (d.ids(V, N, T),)),
    "TimeGRU": ((D, H), steps),
    "TimeGeneralAttention": ((H, D), both),
    "TimeLSTM": ((D, H), steps),
    "TimeLocalAttention": ((H, D), both),
    "TimeRNN": ((D, H), steps),
    "TransformerDecoder": ((DEPTH, D, HEADS, A), decoder),
    "TransformerDecoderLayer": ((D, HEADS, A), decoder),
    "TransformerEncoder": ((DEPTH, D, HEADS, A), steps),
    "TransformerEncoderLayer": ((D, HEADS, A), steps),
}
SAME = ("LayerNorm", "RMSNorm")  # nothing is drawn


def test_every_layer_with_parameters_is_here() -> None:
    kinds = {name: getattr(layers, name) for name in layers.__all__}
    kinds = {name: kind for name, kind in kinds.items() if issubclass(kind, layers.Layer) and kind is not layers.Layer}
    assert set(CREATED) == {name for name, kind in kinds.items() if hasattr(kind, "create")}
    for name in set(kinds) - set(CREATED):
        assert kinds[name]().params == []


@pytest.mark.parametrize("name", CREATED)
def test_what_is_created_has_right_gradients(library: Library, name: str) -> None:
    sizes, inputs = CREATED[name]
    layer = getattr(layers, name).create(*sizes, dtype="float64", seed=3, backend=library.backend)
    assert type(layer) is getattr(layers, name)
    assert layer.params
    errors = gradcheck(layer, *inputs(Draw(library, seed=1)))  # not the seed of the gradients
    assert set(layer.names) <= set(errors)


@pytest.mark.parametrize("name", CREATED)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_have_the_dtype_that_is_asked_for(name: str, dtype: str) -> None:
    sizes, _ = CREATED[name]
    create = getattr(layers, name).create
    assert {str(param.dtype) for param in create(*sizes, dtype=dtype).params} == {dtype}
    assert {str(param.dtype) for param in create(*sizes).params} == {"float32"}


@pytest.mark.parametrize("name", CREATED)
def test_a_seed_is_that_of_the_weights(name: str) -> None:
    create, (sizes, _) = getattr(layers, name).create, CREATED[name]
    one, again, source, two = (
        create(*sizes, **options).params
        for options in ({"seed": 1}, {"seed": 1}, {"initializer": Initializer(1)}, {"seed": 2})
    )
    for a, b, c in zip(one, again, source, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    drawn = [(a, b) for a, b in zip(one, two, strict=True) if np.ptp(a) > 0]
    assert bool(drawn) == (name not in SAME)
    assert not any(np.array_equal(a, b) for a, b in drawn)


@pytest.mark.parametrize("name", CREATED)
def test_an_initializer_stands_alone(name: str) -> None:
    create, (sizes, _) = getattr(layers, name).create, CREATED[name]
    for further in ({"seed": 1}, {"dtype": "float64"}, {"backend": Initializer().backend}):
        (given,) = further
        message = f"`{given}` and `initializer` both say how weights are drawn: pass one of them"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            create(*sizes, initializer=Initializer(), **further)
    with pytest.raises(TypeError, match="`initializer` must be an Initializer, got int: pass a number as `seed`"):
        create(*sizes, initializer=1)


def test_two_layers_from_one_source_differ() -> None:
    source = Initializer(5)
    one, two = (Affine.create(D, H, initializer=source).params[0] for _ in range(2))
    assert not np.array_equal(one, two)


ROWS, COLUMNS = 300, 500


@pytest.mark.parametrize(
    ("scale", "deviation", "embedding"),
    [
        (None, sqrt(2 / (ROWS + COLUMNS)), 1.0),
        ("fan_avg", sqrt(2 / (ROWS + COLUMNS)), 1.0),
        ("fan_in", sqrt(1 / ROWS), 1.0),
        (0.01, 0.01, 0.01),
        (2, 2.0, 2.0),
    ],
)
def test_the_scale_of_what_is_drawn(scale: Any, deviation: float, embedding: float) -> None:
    """Of 150,000 numbers the deviation is known to about 1 in 500."""
    source = Initializer(1, "float64", scale=scale)
    W, b = Affine.create(ROWS, COLUMNS, initializer=source).params
    assert np.std(W) == pytest.approx(deviation, rel=0.01)
    assert np.mean(W) == pytest.approx(0, abs=0.01 * deviation)
    uniform = scale in (None, "fan_avg")
    assert (np.max(np.abs(W)) <= sqrt(3) * deviation) == uniform
    assert not b.any()
    assert np.std(Embedding.create(ROWS, COLUMNS, initializer=source).params[0]) == pytest.approx(embedding, rel=0.01)
    positions = LearnedPositions.create(ROWS, COLUMNS, initializer=source).params[0]
    assert np.std(positions) == pytest.approx(scale if isinstance(scale, (int, float)) else 0.02, rel=0.01)


def test_recurrent_layers_are_drawn_as_the_book_does() -> None:
    Wx, Wh, b = TimeLSTM.create(ROWS, COLUMNS, seed=1).params
    assert (Wx.shape, Wh.shape, b.shape) == ((ROWS, 4 * COLUMNS), (COLUMNS, 4 * COLUMNS), (4 * COLUMNS,))
    assert np.std(Wx) == pytest.approx(sqrt(1 / ROWS), rel=0.01)
    assert np.std(Wh) == pytest.approx(sqrt(1 / COLUMNS), rel=0.01)
    assert not b.any()


def test_gates_side_by_side_are_maps_of_their_own() -> None:
    Wx, Wh, _ = TimeLSTM.create(ROWS, COLUMNS, initializer=Initializer(1, scale="fan_avg")).params
    assert np.std(Wx) == pytest.approx(sqrt(2 / (ROWS + COLUMNS)), rel=0.01)
    assert np.std(Wh) == pytest.approx(sqrt(2 / (COLUMNS + COLUMNS)), rel=0.01)


@pytest.mark.parametrize("scale", ["xavier", 0, -1.0, float("nan"), float("inf"), True, "fan_out"])
def test_a_scale_that_is_none(scale: Any) -> None:
    with pytest.raises(ValueError, match=r"^`scale` must be 'fan_in', 'fan_avg' or a positive number, got "):
        Initializer(scale=scale)


@pytest.mark.parametrize("name", ["Affine", "TimeAffine", "FeedForward", "MultiHeadAttention"])
def test_without_biases(name: str) -> None:
    sizes, _ = CREATED[name]
    names = getattr(layers, name).create(*sizes, use_bias=False).names
    assert [own for own in names if own.rpartition(".")[2] != "W"] == []
    assert len(getattr(layers, name).create(*sizes).names) == 2 * len(names)


def test_options_go_to_the_layer() -> None:
    assert layers.TimeGRU.create(D, H, stateful=True).stateful
    assert layers.TimeBiLSTM.create(D, H, stateful=True).backward_lstm.stateful
    assert not layers.TimeLSTM.create(D, H).stateful
    assert layers.LocalAttention.create(H, D, width=4)._all_steps.width == 4
