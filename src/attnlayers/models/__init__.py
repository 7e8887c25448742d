"""Networks made of layers."""

from ._base import Network
from ._causal_lm import CausalLM
from ._stored import WeightsError
from ._translator import Translator
from .attention_seq2seq import AttentionDecoder, AttentionEncoder, AttentionSeq2seq
from .torch_weights import load_torch, to_torch
from .transformer import Transformer

__all__ = [
    "AttentionDecoder",
    "AttentionEncoder",
    "AttentionSeq2seq",
    "CausalLM",
    "Network",
    "Transformer",
    "Translator",
    "WeightsError",
    "load_torch",
    "to_torch",
]
