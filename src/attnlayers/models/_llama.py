"""Llama and those that are built like it: what their configurations say, and what their weights are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..layers import Affine
from ._family import Config, Family, stored_norm
from ._stored import Stored, WeightsError


def _llama_options(config: Config) -> dict[str, Any]:
    embedding_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    config.one_of("hidden_act", {"silu": "swiglu", "swish": "swiglu"}, "silu")
    head_size = config.pop("head_dim", None)
    if head_size is None and embedding_size % heads:
        raise WeightsError(f"config.json has hidden_size={embedding_size}, no multiple of num_attention_heads={heads}")
    return {
        "vocab_size": config.size("vocab_size"), "embedding_size": embedding_size, "heads": heads,
        "hidden_size": config.size("intermediate_size"), "depth": config.size("num_hidden_layers"),
        "key_heads": config.size("num_key_value_heads", heads), "head_size": head_size,
        "positions": "rotary", "max_length": config.size("max_position_embeddings", 2048),
        "rotary_base": _rotary_base(config), "norm": "rms", "epsilon": config.number("rms_norm_eps", 1e-6),
        "activation": "swiglu", "attention_bias": "all" if config.flag("attention_bias", False) else "none",
        "feed_forward_bias": config.flag("mlp_bias", False), "tied": config.flag("tie_word_embeddings", False),
    }  # fmt: skip


def _rotary_base(config: Config) -> float:
    """Base of rotary positions, where no kind of scaling is asked for."""
    base = config.number("rope_theta", 10000.0)
    for name in ("rope_scaling", "rope_parameters"):
        given = config.pop(name, None) or {}
        if not isinstance(given, dict):
            raise WeightsError(f"config.json must have an object as {name!r}, got {given!r}")
        inner = Config(given)
        base = inner.number("rope_theta", base)
        kind = inner.pop("rope_type", None) or inner.pop("type", None) or "default"
        if kind != "default":
            raise WeightsError(f"config.json has {name} of type {kind!r}, which is not supported: only 'default' is")
        inner.fixed(type="default", partial_rotary_factor=1.0)
        if inner:
            raise WeightsError(f"config.json has {name} with {', '.join(map(repr, sorted(inner)))}: not supported")
    config.fixed(partial_rotary_factor=1.0)
    return base


def _mistral_options(config: Config) -> dict[str, Any]:
    heads = config.get("num_attention_heads")
    config.setdefault("num_key_value_heads", heads if heads is not None and heads < 8 else 8)
    window = config.pop("sliding_window", 4096)
    layers = config.pop("layer_types", None)
    kind = "full_attention" if window is None else "sliding_attention"
    if layers is not None and set(layers) != {kind}:
        raise WeightsError(f"config.json has layer_types={layers!r}, which is not supported: only {kind!r} in all is")
    if window is not None and (not isinstance(window, int) or window < 1):
        raise WeightsError(f"config.json must have a size 'sliding_window' of 1 or more, or null, got {window!r}")
    config.fixed(attention_bias=False, mlp_bias=False)
    return _llama_options(config) | {"window": window}


def _qwen2_options(config: Config) -> dict[str, Any]:
    config.fixed(use_sliding_window=False, attention_bias=True, mlp_bias=False)
    layers = config.pop("layer_types", None)
    if layers is not None and set(layers) != {"full_attention"}:
        raise WeightsError(f"config.json has layer_types={layers!r}, which is not supported: only 'full_attention' is")
    for name in ("sliding_window", "max_window_layers"):  # they say something with use_sliding_window alone
        config.pop(name, None)
    return _llama_options(config) | {"attention_bias": "qkv"}


def _llama_like(o: Mapping[str, Any]) -> dict[str, Any] | None:
    if (o["positions"], o["norm"], o["activation"]) != ("rotary", "rms", "swiglu"):
        return None
    return {
        "vocab_size": o["vocab_size"], "hidden_size": o["embedding_size"], "num_attention_heads": o["heads"],
        "num_key_value_heads": o["key_heads"], "head_dim": o["head_size"], "intermediate_size": o["hidden_size"],
        "num_hidden_layers": o["depth"], "max_position_embeddings": o["max_length"], "rms_norm_eps": o["epsilon"],
        "rope_theta": o["rotary_base"], "rope_parameters": {"rope_theta": o["rotary_base"], "rope_type": "default"},
        "hidden_act": "silu", "attention_dropout": o["dropout"], "tie_word_embeddings": o["tied"],
    }  # fmt: skip


def _llama_config(o: Mapping[str, Any]) -> dict[str, Any] | None:
    config = _llama_like(o)
    if config is None or o["window"] is not None or o["attention_bias"] == "qkv":
        return None
    return config | {"attention_bias": o["attention_bias"] == "all", "mlp_bias": o["feed_forward_bias"]}


def _mistral_config(o: Mapping[str, Any]) -> dict[str, Any] | None:
    config = _llama_like(o)
    if config is None or o["window"] is None or o["attention_bias"] != "none" or o["feed_forward_bias"]:
        return None
    return config | {"sliding_window": o["window"]}


def _qwen2_config(o: Mapping[str, Any]) -> dict[str, Any] | None:
    config = _llama_like(o)
    square = o["head_size"] * o["heads"] == o["embedding_size"]  # the family's configuration has no size of a head
    if (
        config is None
        or o["window"] is not None
        or o["attention_bias"] != "qkv"
        or o["feed_forward_bias"]
        or not square
    ):
        return None
    del config["head_dim"]
    return config | {"use_sliding_window": False}


def _llama_stored(model: Any) -> Iterator[Stored]:
    yield Stored("embed_tokens.weight", (model.embed.params[0],))
    for i, layer in enumerate(model.blocks.stack):
        attention, network = layer.attention, layer.feed_forward
        for name, part in (
            ("self_attn.q_proj", attention.query), ("self_attn.k_proj", attention.key),
            ("self_attn.v_proj", attention.value), ("self_attn.o_proj", attention.output),
            ("mlp.gate_proj", network.gate), ("mlp.up_proj", network.up), ("mlp.down_proj", network.down),
        ):  # fmt: skip
            yield from _linear(f"layers.{i}.{name}", part)
        yield from stored_norm(f"layers.{i}.input_layernorm", layer.layers["norm1"])
        yield from stored_norm(f"layers.{i}.post_attention_layernorm", layer.layers["norm2"])
    yield from stored_norm("norm", model.blocks.norm)


def _linear(name: str, layer: Affine) -> Iterator[Stored]:
    yield Stored(f"{name}.weight", (layer.params[0],), transposed=True)
    if len(layer.params) == 2:
        yield Stored(f"{name}.bias", (layer.params[1],))


LLAMA = Family(_llama_options, _llama_config, _llama_stored, "LlamaForCausalLM", "model.")
MISTRAL = Family(_mistral_options, _mistral_config, _llama_stored, "MistralForCausalLM", "model.")
QWEN2 = Family(_qwen2_options, _qwen2_config, _llama_stored, "Qwen2ForCausalLM", "model.")
