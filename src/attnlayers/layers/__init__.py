"""Layers with ``params``, ``grads``, ``forward`` and ``backward``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._base import Layer
    from .affine import Affine, TimeAffine
    from .attention import Attention, AttentionWeight, TimeAttention, WeightSum
    from .dropout import Dropout, TimeDropout
    from .embedding import Embedding, TimeEmbedding
    from .feed_forward import FeedForward
    from .initializer import Initializer
    from .kv_cache import KVCache
    from .local import LocalAttention, TimeLocalAttention
    from .lstm import LSTM, TimeBiLSTM, TimeLSTM
    from .multi_head import MultiHeadAttention
    from .normalization import LayerNorm, RMSNorm
    from .positions import LearnedPositions, SinusoidalPositions
    from .recurrent import GRU, RNN, TimeGRU, TimeRNN
    from .scores import AdditiveAttention, GeneralAttention, TimeAdditiveAttention, TimeGeneralAttention
    from .softmax import Softmax, SoftmaxWithLoss, TimeSoftmaxWithLoss
    from .transformer_decoder import TransformerDecoder, TransformerDecoderLayer
    from .transformer_encoder import TransformerEncoder, TransformerEncoderLayer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Affine",
    "Attention",
    "AttentionWeight",
    "Dropout",
    "Embedding",
    "FeedForward",
    "GeneralAttention",
    "Initializer",
    "KVCache",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "LocalAttention",
    "MultiHeadAttention",
    "RMSNorm",
    "SinusoidalPositions",
    "Softmax",
    "SoftmaxWithLoss",
    "TimeAdditiveAttention",
    "TimeAffine",
    "TimeAttention",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeGeneralAttention",
    "TimeLSTM",
    "TimeLocalAttention",
    "TimeRNN",
    "TimeSoftmaxWithLoss",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "WeightSum",
]

_MODULES = {
    "_base": "Layer",
    "affine": "Affine TimeAffine",
    "attention": "Attention AttentionWeight TimeAttention WeightSum",
    "dropout": "Dropout TimeDropout",
    "embedding": "Embedding TimeEmbedding",
    "feed_forward": "FeedForward",
    "initializer": "Initializer",
    "kv_cache": "KVCache",
    "local": "LocalAttention TimeLocalAttention",
    "lstm": "LSTM TimeBiLSTM TimeLSTM",
    "multi_head": "MultiHeadAttention",
    "normalization": "LayerNorm RMSNorm",
    "positions": "LearnedPositions SinusoidalPositions",
    "recurrent": "GRU RNN TimeGRU TimeRNN",
    "scores": "AdditiveAttention GeneralAttention TimeAdditiveAttention TimeGeneralAttention",
    "softmax": "Softmax SoftmaxWithLoss TimeSoftmaxWithLoss",
    "transformer_decoder": "TransformerDecoder TransformerDecoderLayer",
    "transformer_encoder": "TransformerEncoder TransformerEncoderLayer",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a layer's module at the first use: most programs need few of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
