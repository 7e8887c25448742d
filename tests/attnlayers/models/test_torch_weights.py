"""Weights from PyTorch and to PyTorch: the same output, and names that are wrong."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from attnlayers import (
    Affine,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    TimeAttention,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from attnlayers.models import Transformer, load_torch, to_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn
N, T, T_K, D, HEADS, HIDDEN = 2, 5, 7, 12, 3, 13


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def scrambled(module: Any) -> Any:
    """The module with parameters that are nowhere 0 or 1, and without dropout."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def by_torch(module: Any, *inputs: np.ndarray, **options: Any) -> np.ndarray:
    # With gradients on: its fast path for inference has other results where everything is hidden.
    out = module(*(torch.tensor(x) for x in inputs), **options)
    out = out[0] if isinstance(out, tuple) else out
    result: np.ndarray = out.detach().numpy()
    return result


def both_ways(make: Any, module_of: Any, run: Any, run_torch: Any, tmp_path: Path) -> None:
    """The outputs agree after a load from a state dict, from a file, and after the way back."""
    module = scrambled(module_of())
    expected = run_torch(module)
    from_state, from_file = make(), make()
    load_torch(from_state, module.state_dict())
    save_file({name: value.numpy() for name, value in module.state_dict().items()}, tmp_path / "theirs.safetensors")
    load_torch(from_file, tmp_path / "theirs.safetensors")
    for layer in (from_state, from_file):
        np.testing.assert_allclose(run(layer), expected, rtol=1e-5, atol=1e-5)
    other = make()  # with its own weights
    back = module_of().eval()
    ours = to_torch(other, tmp_path / "ours.safetensors")
    back.load_state_dict({name: torch.tensor(array) for name, array in ours.items()})
    np.testing.assert_allclose(run_torch(back), run(other), rtol=1e-5, atol=1e-5)
    stored = load_file(tmp_path / "ours.safetensors")
    assert stored.keys() == ours.keys()
    assert all(np.array_equal(stored[name], ours[name]) for name in ours)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cross", [None, D, 11])
def test_multi_head_attention(tmp_path: Path, bias: bool, cross: int | None) -> None:
    x, context = arrays((N, T, D), (N, T_K, cross or D))
    mask = np.array([[True] * T_K, [True] * 4 + [False] * 3])
    sizes = {} if cross is None else {"kdim": cross, "vdim": cross}

    def run(layer: MultiHeadAttention) -> np.ndarray:
        out: np.ndarray = layer.forward(x, causal=True) if cross is None else layer.forward(x, context, mask)
        return out

    def run_torch(module: Any) -> np.ndarray:
        if cross is None:
            return by_torch(module, x, x, x, attn_mask=nn.Transformer.generate_square_subsequent_mask(T))
        return by_torch(module, x, context, context, key_padding_mask=torch.tensor(~mask))

    both_ways(
        lambda: MultiHeadAttention.create(D, HEADS, context_size=cross, use_bias=bias),
        lambda: nn.MultiheadAttention(D, HEADS, bias=bias, batch_first=True, **sizes),
        run,
        run_torch,
        tmp_path,
    )


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_and_decoder_layers(tmp_path: Path, pre_norm: bool, activation: str) -> None:
    x, context = arrays((N, T, D), (N, T_K, D))
    mask = np.array([[True] * T_K, [True] * 4 + [False] * 3])
    padding, causal = torch.tensor(~mask), nn.Transformer.generate_square_subsequent_mask(T)
    ours: dict[str, Any] = {"activation": activation, "pre_norm": pre_norm}
    theirs: dict[str, Any] = {"activation": activation, "norm_first": pre_norm, "batch_first": True, "dropout": 0.0}
    both_ways(
        lambda: TransformerEncoderLayer.create(D, HEADS, HIDDEN, **ours),
        lambda: nn.TransformerEncoderLayer(D, HEADS, HIDDEN, **theirs),
        lambda layer: layer.forward(context, mask)[mask],
        lambda module: by_torch(module, context, src_key_padding_mask=padding)[mask],
        tmp_path,
    )
    both_ways(
        lambda: TransformerDecoderLayer.create(D, HEADS, HIDDEN, **ours),
        lambda: nn.TransformerDecoderLayer(D, HEADS, HIDDEN, **theirs),
        lambda layer: layer.forward(x, context, mask),
        lambda module: by_torch(module, x, context, tgt_mask=causal, memory_key_padding_mask=padding),
        tmp_path,
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_stacks_of_a_whole_transformer() -> None:
    module = scrambled(nn.Transformer(D, HEADS, 2, 2, HIDDEN, dropout=0.0, batch_first=True))
    encoder = TransformerEncoder.create(2, D, HEADS, HIDDEN, activation="relu", pre_norm=False)
    decoder = TransformerDecoder.create(2, D, HEADS, HIDDEN, activation="relu", pre_norm=False)
    # PyTorch has a last norm here although the layers have theirs behind.
    encoder, decoder = (type(x)(x.stack, LayerNorm.create(D)) for x in (encoder, decoder))
    for name, stack in (("encoder.", encoder), ("decoder.", decoder)):
        load_torch(stack, module.state_dict(), prefix=name)
        for key, array in to_torch(stack, prefix=name).items():
            np.testing.assert_array_equal(array, module.state_dict()[key].numpy())
    source, target = arrays((N, T_K, D), (N, T, D))
    causal = nn.Transformer.generate_square_subsequent_mask(T)
    expected = by_torch(module, source, target, tgt_mask=causal)
    np.testing.assert_allclose(decoder.forward(target, encoder.forward(source)), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_torch() -> None:
    module = scrambled(nn.TransformerDecoderLayer(D, HEADS, HIDDEN, 0.0, "gelu", batch_first=True, dtype=torch.float64))
    layer = TransformerDecoderLayer.create(D, HEADS, HIDDEN, activation="gelu", pre_norm=False, dtype="float64")
    load_torch(layer, module.state_dict())
    x, context, dout = (a.astype(np.float64) for a in arrays((N, T, D), (N, T_K, D), (N, T, D)))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, context)]
    out = module(*leaves, tgt_mask=nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64))
    out.backward(torch.tensor(dout))
    np.testing.assert_allclose(layer.forward(x, context), out.detach().numpy(), rtol=1e-10)
    for found, leaf in zip(layer.backward(dout), leaves, strict=True):
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-9, atol=1e-11)
    layer.params = layer.grads
    for part in (layer.self_attention, layer.cross_attention, layer.feed_forward):
        for inner in part.layers.values():
            inner.params = inner.grads
    for norm in ("norm1", "norm2", "norm3"):
        layer.layers[norm].params = layer.layers[norm].grads
    gradients = to_torch(layer)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)


def test_the_model_has_names_for_all() -> None:
    model, other = (Transformer(11, 6, 2, 7, depth=1, seed=seed) for seed in (0, 1))
    state = to_torch(model)
    assert {"source_embed.weight", "encoder.layers.0.self_attn.in_proj_weight", "output.bias"} <= state.keys()
    load_torch(other, state)
    for one, same in zip(model.params, other.params, strict=True):
        np.testing.assert_array_equal(one, same)


def test_half_precision_tensors() -> None:
    module = nn.Linear(3, 2).to(torch.bfloat16)
    layer = Affine(np.zeros((3, 2), np.float32), np.zeros(2, np.float32))
    load_torch(layer, module.state_dict())
    np.testing.assert_array_equal(layer.params[0], module.weight.detach().float().numpy().T)


# -- bad input


def test_names_that_are_wrong_are_listed_with_the_nearest() -> None:
    layer = TransformerEncoderLayer.create(D, HEADS, HIDDEN)
    state = to_torch(layer)
    state["self_atn.in_proj_weight"] = state.pop("self_attn.in_proj_weight")
    state["linear3.bias"] = state["linear2.bias"]
    before = [param.copy() for param in layer.params]
    message = (
        "these are the weights of another layer: unknown are linear3.bias (nearest: linear2.bias), "
        "self_atn.in_proj_weight (nearest: self_attn.in_proj_weight); missing are self_attn.in_proj_weight"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$".replace("linear2", "linear[12]")):
        load_torch(layer, {name: array + 1 for name, array in state.items()})
    assert all(np.array_equal(a, b) for a, b in zip(layer.params, before, strict=True))


def test_another_shape() -> None:
    layer = MultiHeadAttention.create(D, HEADS)
    state = to_torch(layer) | {"in_proj_bias": np.ones(3 * D - 1, np.float32)}
    message = "`in_proj_bias` must have shape (36,) to fit the layer, got (35,)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_torch(layer, state)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: MultiHeadAttention.create(D, HEADS, key_heads=1), "has no counterpart of key_heads=1"),
        (lambda: MultiHeadAttention.create(D, HEADS, rotary="half"), "has no counterpart of rotary='half'"),
        (lambda: FeedForward.create(D, HIDDEN, activation="swiglu"), "no counterpart of a FeedForward with 'swiglu'"),
        (TimeAttention, "names are known for the layers of a Transformer, got TimeAttention"),
        (lambda: MultiHeadAttention(*[np.ones((4, 4))] * 4, np.ones(4), heads=2), "keys and values or none, got 1"),
    ],
)
def test_what_torch_lacks(layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        to_torch(layer())
