"""Names, parameters and their way to a file and back."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from support import Library

import attnlayers.models
from attnbackends import get_backend
from attnlayers import TimeAffine, TimeAttention
from attnlayers.models import AttentionSeq2seq, Network

NUMPY = get_backend("numpy")
NAMES = (
    *("encoder.embed.W", "encoder.lstm.Wx", "encoder.lstm.Wh", "encoder.lstm.b"),
    *("decoder.embed.W", "decoder.lstm.Wx", "decoder.lstm.Wh", "decoder.lstm.b"),
    *("decoder.affine.W", "decoder.affine.b"),
)


def test_public_names() -> None:
    names = (
        "AttentionDecoder AttentionEncoder AttentionSeq2seq CausalLM Network Transformer Translator WeightsError "
        "load_torch to_torch"
    )
    assert attnlayers.models.__all__ == names.split()


def test_names_are_parallel_to_params_and_grads() -> None:
    V, D, H = 11, 3, 5
    model = AttentionSeq2seq(V, D, H, backend=NUMPY)
    shapes = [(V, D), (D, 4 * H), (H, 4 * H), (4 * H,)] * 2 + [(2 * H, V), (V,)]
    assert model.names == NAMES
    assert len(set(model.names)) == len(model.names)
    assert [param.shape for param in model.params] == shapes
    assert [grad.shape for grad in model.grads] == shapes
    assert {str(array.dtype) for array in (*model.params, *model.grads)} == {"float32"}


def test_params_are_those_of_the_layers() -> None:
    model = AttentionSeq2seq(11, 3, 5, backend=NUMPY)
    decoder = model.decoder
    assert decoder.names == tuple(name.removeprefix("decoder.") for name in NAMES[4:])
    for mine, theirs in zip(model.params[4:], decoder.params, strict=True):
        assert mine is theirs
    assert model.params[-2] is decoder.affine.params[0]
    assert model.grads[-1] is decoder.affine.grads[1]


def test_a_network_of_layers_and_networks(library: Library) -> None:
    affine = TimeAffine(library.array(np.ones((2, 3))), library.array(np.ones(3)))
    inner = Network(library.backend, out=affine)
    network = Network(library.backend, attention=TimeAttention(), inner=inner)
    assert network.names == ("inner.out.W", "inner.out.b")
    assert network.params[0] is affine.params[0]
    assert network.grads[1] is affine.grads[1]


def test_state_goes_to_the_host_and_back(library: Library, make_model: Callable[..., AttentionSeq2seq]) -> None:
    model, other = make_model(library.backend, seed=1), make_model(library.backend, seed=2)
    state = {name: value.copy() for name, value in model.state().items()}
    assert tuple(state) == NAMES
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in state.values())
    places = [*other.params]
    other.load_state(state)
    for name, param, place in zip(other.names, other.params, places, strict=True):
        assert param is place
        np.testing.assert_array_equal(library.numpy(param), state[name])


def test_state_stays_when_the_model_learns(library: Library, make_model: Callable[..., AttentionSeq2seq]) -> None:
    model = make_model(library.backend)
    state = model.state()
    before = {name: value.copy() for name, value in state.items()}
    for param in model.params:
        param += 1
    for name, value in state.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} is no copy")


def test_loaded_arrays_are_copied(make_model: Callable[..., AttentionSeq2seq]) -> None:
    model = make_model(NUMPY)
    state = {name: value.copy() for name, value in model.state().items()}
    for value in state.values():
        value.flags.writeable = False
    model.load_state(state)
    for param in model.params:
        param += 1  # neither refused nor seen in what was loaded
    assert all(not np.array_equal(model.state()[name], value) for name, value in state.items())


def test_loading_keeps_the_dtype_of_the_model(make_model: Callable[..., AttentionSeq2seq]) -> None:
    model = make_model(NUMPY)
    model.load_state({name: value.astype(np.float64) for name, value in model.state().items()})
    assert {str(param.dtype) for param in model.params} == {"float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: [state.pop("encoder.lstm.b"), state.pop("decoder.affine.W")],
            "these are the weights of another model: missing are decoder.affine.W, encoder.lstm.b",
        ),
        (
            lambda state: state.update({"decoder.query.W": np.zeros(1), "decoder.key.W": np.zeros(1)}),
            "these are the weights of another model: unknown are decoder.key.W, decoder.query.W",
        ),
        (
            lambda state: state.update({"W": state.pop("encoder.embed.W")}),
            "these are the weights of another model: missing are encoder.embed.W; unknown are W",
        ),
        (
            lambda state: state.update({"decoder.affine.b": np.zeros(12)}),
            "decoder.affine.b must have shape (11,), got (12,)",
        ),
        (
            lambda state: state.update({"encoder.lstm.b": np.zeros(())}),
            "encoder.lstm.b must have shape (20,), got ()",
        ),
        (
            lambda state: state.update({"encoder.embed.W": np.zeros((3, 11))}),
            "encoder.embed.W must have shape (11, 3), got (3, 11)",
        ),
    ],
    ids=["missing", "unknown", "renamed", "another shape", "a shape that broadcasts", "transposed"],
)
def test_what_does_not_fit_is_named_and_nothing_is_overwritten(
    make_model: Callable[..., AttentionSeq2seq],
    change: Callable[[dict[str, np.ndarray]], object],
    message: str,
) -> None:
    model = make_model(NUMPY)
    before = [np.array(param) for param in model.params]
    state = {name: np.zeros_like(value) for name, value in model.state().items()}
    change(state)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.load_state(state)
    for param, old in zip(model.params, before, strict=True):
        np.testing.assert_array_equal(param, old)
