"""Families of language models that others train: what their configuration says, and what their weights are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..layers import Affine, LayerNorm, RMSNorm
from ._stored import Stored, WeightsError

IGNORED = frozenset(
    """
    architectures model_type transformers_version dtype torch_dtype use_cache initializer_range _name_or_path
    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id tokenizer_class prefix
    attn_pdrop embd_pdrop resid_pdrop attention_dropout hidden_dropout summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj return_dict output_hidden_states output_attentions
    torchscript use_bfloat16 tf_legacy_loss pruned_heads chunk_size_feed_forward is_encoder_decoder is_decoder
    cross_attention_hidden_size tie_encoder_decoder max_length min_length do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens finetuning_task id2label label2id
    task_specific_params problem_type reorder_and_upcast_attn pretraining_tp n_ctx _attn_implementation
    attn_implementation gradient_checkpointing
    """.split()  # noqa: SIM905
)
"""Entries of a configuration that change no logit: how a model is trained, how text is drawn from it, and the like."""


@dataclass(frozen=True)
class Family:
    """What is known of a family.

    Attributes
    ----------
    options : callable
        From a configuration, out of which it takes what it knows, to the options of `CausalLM`.
    config : callable
        From these options to a configuration, or None where the family has no such model.
    stored : callable
        The arrays of a file, without the prefix that most files have.
    architecture : str
        What `transformers` calls the class.
    prefix : str
    """

    options: Callable[[_Config], dict[str, Any]]
    config: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    stored: Callable[[Any], Iterator[Stored]]
    architecture: str
    prefix: str


class _Config(dict[str, Any]):
    """A configuration, from which each entry is taken once; what is left is not known."""

    def size(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self.pop(name, None)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WeightsError(f"config.json must have a size {name!r} of 1 or more, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.pop(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise WeightsError(f"config.json must have a positive number {name!r}, got {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.pop(name, default)
        if not isinstance(value, bool):
            raise WeightsError(f"config.json must have true or false as {name!r}, got {value!r}")
        return value

    def one_of(self, name: str, known: Mapping[str, str], default: str) -> str:
        value = self.pop(name, default)
        if not isinstance(value, str) or value not in known:
            raise WeightsError(
                f"config.json has {name}={value!r}, which is not supported: known are {', '.join(known)}"
            )
        return known[value]

    def fixed(self, **values: Any) -> None:
        """Entries that must be what they are by default."""
        for name, value in values.items():
            got = self.pop(name, value)
            if got != value:
                raise WeightsError(f"config.json has {name}={got!r}, which is not supported: only {value!r} is")


def options_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The family and the options of `CausalLM` that a configuration stands for.

    Raises
    ------
    WeightsError
        For a family that is not known, or an option that is not known or not supported.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise WeightsError(
            f"config.json has model_type={family!r}, which is not known: known are {', '.join(FAMILIES)}"
        )
    architectures = config.get("architectures")
    own = FAMILIES[family].architecture
    if architectures and own not in architectures and own.removesuffix("LMHeadModel") + "Model" not in architectures:
        raise WeightsError(f"config.json has architectures={architectures!r}, which is not supported: only {own} is")
    left = _Config({name: value for name, value in config.items() if name not in IGNORED})
    options = FAMILIES[family].options(left)
    unknown = sorted(name for name, value in left.items() if value is not None)
    if unknown:
        raise WeightsError(
            f"config.json has options that are not known for {family}, and might change what the model computes: "
            f"{', '.join(f'{name}={left[name]!r}' for name in unknown)}"
        )
    return family, options


def family_of(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The family that has a model of these options, and its configuration."""
    for name, family in FAMILIES.items():
        config = family.config(options)
        if config is not None:
            return name, {"architectures": [family.architecture], "model_type": name} | config
    told = ", ".join(f"{key}={options[key]!r}" for key in _TELLING)
    raise WeightsError(f"none of {', '.join(FAMILIES)} has a model with {told}: attnlayers.save writes it")


_TELLING = (
    "positions",
    "norm",
    "activation",
    "attention_bias",
    "feed_forward_bias",
    "key_heads",
    "head_size",
    "window",
)

# -- GPT-2

_GELU = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}


def _gpt2_options(config: _Config) -> dict[str, Any]:
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


def _gpt2_config(o: Mapping[str, Any]) -> dict[str, Any] | None:
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


def _gpt2_stored(model: Any) -> Iterator[Stored]:
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
        yield from _norm(f"h.{i}.ln_1", layer.layers["norm1"])
        yield from _norm(f"h.{i}.ln_2", layer.layers["norm2"])
    yield from _norm("ln_f", model.blocks.norm)


# -- Llama and those that are built like it


def _llama_options(config: _Config) -> dict[str, Any]:
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


def _rotary_base(config: _Config) -> float:
    """Base of rotary positions, where no kind of scaling is asked for."""
    base = config.number("rope_theta", 10000.0)
    for name in ("rope_scaling", "rope_parameters"):
        given = config.pop(name, None) or {}
        if not isinstance(given, dict):
            raise WeightsError(f"config.json must have an object as {name!r}, got {given!r}")
        inner = _Config(given)
        base = inner.number("rope_theta", base)
        kind = inner.pop("rope_type", None) or inner.pop("type", None) or "default"
        if kind != "default":
            raise WeightsError(f"config.json has {name} of type {kind!r}, which is not supported: only 'default' is")
        inner.fixed(type="default", partial_rotary_factor=1.0)
        if inner:
            raise WeightsError(f"config.json has {name} with {', '.join(map(repr, sorted(inner)))}: not supported")
    config.fixed(partial_rotary_factor=1.0)
    return base


def _mistral_options(config: _Config) -> dict[str, Any]:
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


def _qwen2_options(config: _Config) -> dict[str, Any]:
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
        yield from _norm(f"layers.{i}.input_layernorm", layer.layers["norm1"])
        yield from _norm(f"layers.{i}.post_attention_layernorm", layer.layers["norm2"])
    yield from _norm("norm", model.blocks.norm)


def _linear(name: str, layer: Affine) -> Iterator[Stored]:
    yield Stored(f"{name}.weight", (layer.params[0],), transposed=True)
    if len(layer.params) == 2:
        yield Stored(f"{name}.bias", (layer.params[1],))


def _norm(name: str, layer: LayerNorm | RMSNorm) -> Iterator[Stored]:
    for kind, param in zip(("weight", "bias"), layer.params, strict=False):
        yield Stored(f"{name}.{kind}", (param,))


FAMILIES = {
    "gpt2": Family(_gpt2_options, _gpt2_config, _gpt2_stored, "GPT2LMHeadModel", "transformer."),
    "llama": Family(_llama_options, _llama_config, _llama_stored, "LlamaForCausalLM", "model."),
    "mistral": Family(_mistral_options, _mistral_config, _llama_stored, "MistralForCausalLM", "model."),
    "qwen2": Family(_qwen2_options, _qwen2_config, _llama_stored, "Qwen2ForCausalLM", "model."),
}
