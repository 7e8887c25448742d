"""The families of language models that are known, and which of them a configuration or a model belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._family import Config
from ._gpt2 import GPT2
from ._llama import LLAMA, MISTRAL, QWEN2
from ._stored import WeightsError

FAMILIES = {"gpt2": GPT2, "llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2}

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
    left = Config({name: value for name, value in config.items() if name not in IGNORED})
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
