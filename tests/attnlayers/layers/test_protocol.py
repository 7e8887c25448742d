"""What holds for every layer: the book's protocol, dtypes, and that nothing of the caller's is written to."""

import copy
import re
from typing import Any

import numpy as np
import pytest
from cases import CASES, name_of
from support import Draw, Library

import attnlayers
from attnbackends import get_backend
from attnlayers import Layer
from attnlayers import layers as all_layers

FLOATS = ("float16", "bfloat16", "float32", "float64")


def as_tuple(x: Any) -> tuple[Any, ...]:
    return () if x is None else x if isinstance(x, tuple) else (x,)


def douts_for(draw: Draw, outs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(draw(*out.shape) for out in outs)


def floating(library: Library, arrays: Any) -> list[Any]:
    return [x for x in arrays if library.xp.isdtype(x.dtype, "real floating")]


def snapshot(library: Library, arrays: Any) -> list[np.ndarray]:
    return [library.numpy(x).copy() for x in arrays]


def test_there_is_a_case_for_every_layer() -> None:
    assert {name_of(case) for case in CASES} == set(all_layers.__all__) - {"Layer", "Initializer", "KVCache"}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_shapes_and_dtypes(library: Library, case: str, dtype: str) -> None:
    if not hasattr(library.xp, dtype):
        pytest.skip(f"{library.backend.name} has no {dtype}")
    draw = Draw(library, dtype)
    layer, inputs = CASES[case](draw)
    outs = as_tuple(layer.forward(*inputs))
    gradients = as_tuple(layer.backward(*douts_for(draw, outs)))
    own = getattr(library.xp, dtype)
    assert [tuple(g.shape) for g in gradients] == [tuple(x.shape) for x in floating(library, inputs)]
    assert [tuple(g.shape) for g in layer.grads] == [tuple(p.shape) for p in layer.params]
    assert all(x.dtype == own for x in (*outs, *gradients, *layer.params, *layer.grads))
    assert all(x.device == outs[0].device for x in gradients)


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_is_passed_in_is_written_to(library: Library, case: str) -> None:
    draw = Draw(library)
    layer, inputs = CASES[case](draw)
    passed = [*inputs, *layer.params]
    before = snapshot(library, passed)
    outs = as_tuple(layer.forward(*inputs))
    of_outs = snapshot(library, outs)
    douts = douts_for(draw, outs)
    of_douts = snapshot(library, douts)
    layer.backward(*douts)
    for arrays, copies in ((passed, before), (outs, of_outs), (douts, of_douts)):
        for array, kept in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(library.numpy(array), kept)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_written_in_place_and_not_added(library: Library, case: str) -> None:
    draw = Draw(library)
    layer, inputs = CASES[case](draw)
    params, grads = list(layer.params), list(layer.grads)
    assert len(params) == len(grads) == len(layer.names)
    assert all((library.numpy(g) == 0).all() for g in grads)
    outs = as_tuple(layer.forward(*inputs))
    douts = douts_for(draw, outs)
    layer.backward(*douts)
    first = snapshot(library, layer.grads)
    layer.backward(*douts)
    assert all(now is then for now, then in zip([*layer.params, *layer.grads], [*params, *grads], strict=True))
    for grad, before in zip(layer.grads, first, strict=True):
        np.testing.assert_array_equal(library.numpy(grad), before)
        assert np.abs(before).max() > 0


@pytest.mark.parametrize("case", CASES)
def test_what_is_returned_may_be_written_to(library: Library, case: str) -> None:
    draw = Draw(library)
    layer, inputs = CASES[case](draw)
    outs = as_tuple(layer.forward(*inputs))
    gradients = as_tuple(layer.backward(*douts_for(draw, outs)))
    kept = snapshot(library, layer.grads)
    for array in (*gradients, *(x for x in outs if x.ndim)):
        array[...] = 7
        assert (library.numpy(array) == 7).all()
    for grad, before in zip(layer.grads, kept, strict=True):
        np.testing.assert_array_equal(library.numpy(grad), before)


@pytest.mark.parametrize("case", CASES)
def test_backward_before_forward(library: Library, case: str) -> None:
    layer, _ = CASES[case](Draw(library))
    name = type(layer).__name__
    anything = library.array(np.zeros((2, 3)))
    count = 2 if name == "LSTM" else 1
    expected = f"{name}.backward needs what forward saves: call forward first"
    with pytest.raises(RuntimeError, match=f"^{re.escape(expected)}$"):
        layer.backward(*[anything] * count)


@pytest.mark.parametrize("case", CASES)
def test_the_same_input_gives_the_same_output(library: Library, case: str) -> None:
    runs = []
    for _ in range(2):
        draw = Draw(library)
        layer, inputs = CASES[case](draw)
        outs = as_tuple(layer.forward(*inputs))
        gradients = as_tuple(layer.backward(*douts_for(draw, outs)))
        runs.append(snapshot(library, [*outs, *gradients, *layer.grads]))
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_copy_goes_its_own_way(library: Library, case: str) -> None:
    twins = []
    for disturbed in (False, True):
        layer, inputs = CASES[case](Draw(library))
        layer.forward(*inputs)
        if disturbed:
            other = copy.deepcopy(layer)
            for param in other.params:
                param[...] = 0
            other.forward(*inputs)
        twins.append(snapshot(library, as_tuple(layer.forward(*inputs))))
    assert all(np.array_equal(a, b) for a, b in zip(*twins, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_repr_names_the_class_and_its_parameters(library: Library, case: str) -> None:
    layer, _ = CASES[case](Draw(library))
    text = repr(layer)
    assert text.startswith(f"{type(layer).__name__}(")
    assert text.endswith(")")
    shapes = [f"{name.rpartition('.')[2]} {tuple(p.shape)}" for name, p in zip(layer.names, layer.params, strict=True)]
    place = 0
    for shape in shapes:
        place = text.index(shape, place)  # in their order
    assert ("\n" in text) == bool(getattr(layer, "layers", {}))
    if layer.params:
        assert layer.backend is library.backend


def test_the_base_has_nothing_to_compute() -> None:
    class Empty(Layer):
        pass

    for name in ("forward", "backward"):
        with pytest.raises(AttributeError, match=f"^'Empty' object has no attribute '{name}'$"):
            getattr(Empty(), name)


@pytest.mark.parametrize("case", CASES)
def test_lists_are_refused(case: str) -> None:
    layer, inputs = CASES[case](Draw(Library(get_backend("numpy"))))
    with pytest.raises(
        TypeError, match=r"must be an array of .*, got list: make one with attnbackends\.backend\.asarray"
    ):
        layer.forward(inputs[0].tolist(), *inputs[1:])


def test_repr_shows_options_and_nests_over_lines() -> None:
    many = attnlayers.MultiHeadAttention.create(8, 4, key_heads=2, rotary="half", window=(3, 0))
    assert repr(many).splitlines() == [
        "MultiHeadAttention(",
        "  heads=4, key_heads=2, rotary='half', window=(3, 0)",
        "  query: Affine(W (8, 8), b (8,))",
        "  key: Affine(W (8, 4), b (4,))",
        "  value: Affine(W (8, 4), b (4,))",
        "  output: Affine(W (8, 8), b (8,))",
        ")",
    ]
    assert repr(attnlayers.Dropout(0.25)) == "Dropout(dropout=0.25)"
    encoder = attnlayers.TransformerEncoder.create(1, 4, 2, 6, pre_norm=False)
    lines = repr(encoder).splitlines()
    assert lines[:5] == [
        "TransformerEncoder(",
        "  0: TransformerEncoderLayer(",
        "    pre_norm=False",
        "    attention: MultiHeadAttention(",
        "      heads=2, key_heads=2",
    ]
    assert [len(line) - len(line.lstrip()) for line in lines[-2:]] == [2, 0]
