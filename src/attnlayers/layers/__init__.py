"""Layers with ``params``, ``grads``, ``forward`` and ``backward``."""

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
