"""Networks made of layers."""

from ._base import Network
from .attention_seq2seq import AttentionDecoder, AttentionEncoder, AttentionSeq2seq

__all__ = ["AttentionDecoder", "AttentionEncoder", "AttentionSeq2seq", "Network"]
