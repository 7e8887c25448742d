"""Networks made of layers."""

from ._base import Network
from ._translator import Translator
from .attention_seq2seq import AttentionDecoder, AttentionEncoder, AttentionSeq2seq
from .torch_weights import load_torch, to_torch
from .transformer import Transformer

__all__ = [
    "AttentionDecoder",
    "AttentionEncoder",
    "AttentionSeq2seq",
    "Network",
    "Transformer",
    "Translator",
    "load_torch",
    "to_torch",
]
