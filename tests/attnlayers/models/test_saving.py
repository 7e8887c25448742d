"""`save` and `load`: the same layer comes back, bit for bit, or an error that says why not."""

import inspect
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file
from support import Draw, Library

import attnlayers
from attnbackends import get_backend
from attnlayers import layers as all_layers
from attnlayers.models import AttentionSeq2seq, CausalLM, Transformer, WeightsError

NUMPY = get_backend("numpy")

MODELS: dict[str, Callable[..., Any]] = {
    "Transformer": lambda **o: Transformer(11, 8, 2, 16, 2, norm=all_layers.RMSNorm, dropout=0.1, **o),
    "AttentionSeq2seq": lambda **o: AttentionSeq2seq(11, 3, 5, attention="additive", dropout=0.1, **o),
    "CausalLM": lambda **o: CausalLM(11, 8, 2, 16, 2, key_heads=1, window=3, epsilon=1e-3, dropout=0.1, **o),
    "llama": lambda **o: CausalLM(
        11, 8, 4, 16, 1, key_heads=2, head_size=6, positions="rotary", norm="rms", activation="swiglu",
        attention_bias="qkv", feed_forward_bias=False, tied=False, **o,
    ),
}  # fmt: skip


def bits(layer: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    names = layer.names if len(layer.names) == len(layer.params) else [str(i) for i in range(len(layer.params))]
    host = {name: np.asarray(layer.backend.to_numpy(p)) for name, p in zip(names, layer.params, strict=True)}
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in host.items()}


STATES = "h", "c", "dh"
"""Attributes of recurrent layers that are no options: where they are."""


def options(layer: Any) -> dict[str, Any]:
    """What a layer is beside its weights: its plain attributes, and those of the layers in it."""
    own = {
        name: value
        for name, value in vars(layer).items()
        if name not in STATES and not name.startswith("_") and isinstance(value, int | float | str | tuple | None)
    }
    return own | {name: options(inner) for name, inner in getattr(layer, "layers", {}).items()}


def outs(layer: Any, inputs: Any) -> list[np.ndarray]:
    found = layer.forward(*inputs)
    return [np.asarray(out) for out in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize("case", CASES)
def test_every_layer_comes_back(tmp_path: Path, case: str) -> None:
    draw = Draw(Library(NUMPY), "float32")
    layer, inputs = CASES[case](draw)
    path = tmp_path / "layer.safetensors"
    attnlayers.save(layer, path)
    back = attnlayers.load(path, backend=NUMPY)
    assert type(back) is type(layer)
    assert bits(back) == bits(layer)
    assert options(back) == options(layer)
    for name in STATES:
        if hasattr(layer, name):
            setattr(back, name, getattr(layer, name))
    for one, other in zip(outs(back, inputs), outs(layer, inputs), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_comes_back_in_its_dtype(tmp_path: Path, model: str, dtype: str) -> None:
    made = MODELS[model](seed=3, dtype=dtype, backend=NUMPY)
    attnlayers.save(made, tmp_path / "m")
    back = attnlayers.load(tmp_path / "m", backend=NUMPY)
    assert type(back) is type(made)
    assert bits(back) == bits(made)
    assert options(back) == options(made)
    other = MODELS[model](seed=4, dtype=dtype, backend=NUMPY)
    assert bits(other) != bits(made)
    assert attnlayers.load(tmp_path / "m", other) is other
    assert bits(other) == bits(made)


def created(name: str, **drawing: Any) -> Any:
    """A layer that `create` makes, of small sizes."""
    cls: Any = getattr(all_layers, name)
    required = [
        parameter.name
        for parameter in inspect.signature(cls.create).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return cls.create(**{name: {"heads": 3, "depth": 2}.get(name, 12) for name in required}, **drawing)


@pytest.mark.parametrize("name", [n for n in all_layers.__all__ if hasattr(getattr(all_layers, n), "create")])
def test_every_class_comes_back_from_every_library(tmp_path: Path, library: Library, name: str) -> None:
    """Written where it lives, read on the host; and the other way round."""
    layer = created(name, seed=3, backend=library.backend)
    attnlayers.save(layer, tmp_path / "m")
    back = attnlayers.load(tmp_path / "m", backend=NUMPY)
    assert back.backend is NUMPY
    assert bits(back) == bits(layer)
    assert options(back) == options(layer)
    there = attnlayers.load(tmp_path / "m", backend=library.backend)
    assert there.backend is library.backend
    assert bits(there) == bits(layer)


def test_the_file_is_for_others_too(tmp_path: Path) -> None:
    layer = all_layers.MultiHeadAttention.create(8, heads=4, key_heads=2, rotary="half")
    attnlayers.save(layer, tmp_path / "m.safetensors")
    arrays = load_file(tmp_path / "m.safetensors")
    assert list(arrays) == sorted(layer.names)
    assert np.array_equal(arrays["query.W"], layer.params[0])


def test_what_was_changed_after_construction_is_kept(tmp_path: Path) -> None:
    layer = all_layers.LayerNorm.create(3)
    layer.epsilon = 0.25
    attnlayers.save(layer, tmp_path / "m")
    back = attnlayers.load(tmp_path / "m")
    assert isinstance(back, all_layers.LayerNorm)
    assert back.epsilon == 0.25


class Own(attnlayers.Layer):
    """A class of a user's."""

    names = ("W",)


def test_a_class_of_ones_own_needs_the_layer(tmp_path: Path) -> None:
    layer = Own(np.arange(6.0).reshape(2, 3))
    attnlayers.save(layer, tmp_path / "m")
    with pytest.raises(WeightsError, match=r"holds a .*Own, no class of this library: make it"):
        attnlayers.load(tmp_path / "m")
    back = Own(np.zeros((2, 3)))
    attnlayers.load(tmp_path / "m", back)
    assert bits(back) == bits(layer)


def test_names_that_differ_are_listed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    save_file({"gain": np.ones(3, np.float32), "bia": np.ones(3, np.float32)}, tmp_path / "m")
    layer = all_layers.LayerNorm.create(3)
    before = bits(layer)
    with pytest.raises(WeightsError, match=r"unknown are bia \(nearest: bias\); missing are bias"):
        attnlayers.load(tmp_path / "m", layer)
    save_file({"gain": np.full(3, 7, np.float32), "bias": np.ones(4, np.float32)}, tmp_path / "m")
    with pytest.raises(WeightsError, match=r"`bias` must have shape \(3,\) to fit the layer, got \(4,\)"):
        attnlayers.load(tmp_path / "m", layer)
    save_file({"gain": np.full(3, 7, np.float32), "bias": np.ones(3, np.float64)}, tmp_path / "m")
    with pytest.raises(WeightsError, match=r"`bias` is in float64, got a layer in float32"):
        attnlayers.load(tmp_path / "m", layer)
    assert bits(layer) == before


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(WeightsError, match="is not there"):
        attnlayers.load(path)
    attnlayers.save(all_layers.LayerNorm.create(300), path)
    whole = path.read_bytes()
    bad = {
        "cut short": whole[: len(whole) // 2], "cut in the header": whole[:40], "empty": b"",
        "a pickle": pickle.dumps({"gain": np.ones(3)}), "text": b"hello " * 100, "a long header": b"\xff" * 4000,
    }  # fmt: skip
    for name, content in bad.items():
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cut short, damaged or no safetensors file") as caught:
            attnlayers.load(path)
        assert "\n" not in str(caught.value), name
    save_file({"gain": np.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"was not written by attnlayers\.save"):
        attnlayers.load(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3)
    | st.sampled_from(["LayerNorm", "MultiHeadAttention", "Transformer", "class", "layer", "heads"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["class", "args", "options", "layer", "array", "gain", "bias", "type"]), inner),
    max_leaves=12,
)  # fmt: skip


@given(metadata=_JSON)
def test_metadata_of_any_kind_makes_a_layer_or_one_error(tmp_path_factory: Any, metadata: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.safetensors"
    text = json.dumps(metadata)
    path.write_bytes(save({"gain": np.ones(3)}, {"format": "attnlayers layer 1", "layer": text}))
    with pytest.raises(WeightsError):
        attnlayers.load(path)


def test_arrays_of_integers_are_no_layer(tmp_path: Path) -> None:
    description = {"class": "RMSNorm", "args": [], "options": {"gain": {"array": [3]}}}
    metadata = {"format": "attnlayers layer 1", "layer": json.dumps(description)}
    (tmp_path / "m").write_bytes(save({"gain": np.ones(3, np.int64)}, metadata))
    with pytest.raises(
        WeightsError, match="does not say how to make its layer: `dtype` must be the name of a floating"
    ):
        attnlayers.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "Backend", "TimeAttention.__init__", "cupy"])
def test_metadata_names_layers_alone(tmp_path: Path, name: str) -> None:
    description = {"class": name, "args": ["echo"], "options": {}}
    (tmp_path / "m").write_bytes(save({}, {"format": "attnlayers layer 1", "layer": json.dumps(description)}))
    with pytest.raises(WeightsError, match=re.escape(f"holds a {name}, no class of this library")):
        attnlayers.load(tmp_path / "m")


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    attnlayers.save(all_layers.LayerNorm.create(3), path)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        RuntimeError, match=r"cannot be written: No space left on device; what stood there is untouched"
    ):
        attnlayers.save(all_layers.LayerNorm.create(5), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_gradients_take_no_memory_until_they_are_asked_for() -> None:
    layer = all_layers.TransformerEncoder.create(2, 8, 2, 16)
    assert layer._grads is None
    grads = layer.grads
    x = np.ones((1, 3, 8), np.float32)
    layer.forward(x)
    layer.backward(x)
    assert all(one is other for one, other in zip(layer.grads, grads, strict=True))
    assert any(np.any(grad) for grad in grads)
