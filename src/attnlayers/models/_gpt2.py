"""GPT-2: what its configuration says, and what its weights are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._family import Config, Family, stored_norm
from ._stored import Stored

_GELU = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}


def _options(config: Config) -> dict[str, Any]:
    config.fixed(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    embedding_size = config.size("n_embd")
    return {
        "vocab_size": config.size("vocab_size"), "embedding_size": embedding_size, "heads": config.size("n_head"),
        "hidden_size": config.size("n_inner", 4 * embedding_size), "depth": config.size("n_layer"),
        "positions": "learned", "max_length": config.size("n_positions", 1024), "norm": "layer",
        "epsilon": config.number("layer_norm_epsilon", 1e-5),
        "activation": config.one_of("activation_function", _GELU, "gelu_new"), "attention_bias": "all",
        "feed_forward_bias": True, "tied": config.flag("tie_word_embeddings", True),
    }  # fmt: skip


def _config(o: Mapping[str, Any]) -> dict[str, Any] | None:
    names = {known: name for name, known in reversed(_GELU.items())}
    if (
        (o["positions"], o["norm"], o["attention_bias"], o["feed_forward_bias"], o["window"])
        != ("learned", "layer", "all", True, None)
        or o["activation"] not in names
        or o["key_heads"] != o["heads"]
        or o["head_size"] * o["heads"] != o["embedding_size"]
    ):
        return None
    return {
        "vocab_size": o["vocab_size"], "n_embd": o["embedding_size"], "n_head": o["heads"], "n_inner": o["hidden_size"],
        "n_layer": o["depth"], "n_positions": o["max_length"], "layer_norm_epsilon": o["epsilon"],
        "activation_function": names[o["activation"]], "tie_word_embeddings": o["tied"],
        "attn_pdrop": o["dropout"], "embd_pdrop": o["dropout"], "resid_pdrop": o["dropout"],
    }  # fmt: skip


def _stored(model: Any) -> Iterator[Stored]:
    yield Stored("wte.weight", (model.embed.params[0],))
    yield Stored("wpe.weight", (model.positions.params[0],))
    for i, layer in enumerate(model.blocks.stack):
        attention, network = layer.attention, layer.feed_forward
        three = attention.query, attention.key, attention.value
        for name, parts in (
            ("attn.c_attn", three), ("attn.c_proj", (attention.output,)),
            ("mlp.c_fc", (network.up,)), ("mlp.c_proj", (network.down,)),
        ):  # fmt: skip
            for kind, place in (("weight", 0), ("bias", 1)):
                yield Stored(f"h.{i}.{name}.{kind}", tuple(part.params[place] for part in parts))
        yield from stored_norm(f"h.{i}.ln_1", layer.layers["norm1"])
        yield from stored_norm(f"h.{i}.ln_2", layer.layers["norm2"])
    yield from stored_norm("ln_f", model.blocks.norm)


GPT2 = Family(_options, _config, _stored, "GPT2LMHeadModel", "transformer.")
