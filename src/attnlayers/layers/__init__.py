"""Layers with ``params``, ``grads``, ``forward`` and ``backward``."""

from ._base import Layer
from .affine import Affine, TimeAffine
from .attention import Attention, AttentionWeight, TimeAttention, WeightSum
from .dropout import Dropout, TimeDropout
from .embedding import Embedding, TimeEmbedding
from .recurrent import GRU, LSTM, RNN, TimeBiLSTM, TimeGRU, TimeLSTM, TimeRNN
from .softmax import Softmax, SoftmaxWithLoss, TimeSoftmaxWithLoss

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Attention",
    "AttentionWeight",
    "Dropout",
    "Embedding",
    "Layer",
    "Softmax",
    "SoftmaxWithLoss",
    "TimeAffine",
    "TimeAttention",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeRNN",
    "TimeSoftmaxWithLoss",
    "WeightSum",
]
