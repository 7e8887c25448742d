"""Layers with ``params``, ``grads``, ``forward`` and ``backward``."""

from ._base import Layer
from .affine import Affine, TimeAffine
from .attention import Attention, AttentionWeight, TimeAttention, WeightSum
from .dropout import Dropout, TimeDropout
from .embedding import Embedding, TimeEmbedding
from .recurrent import LSTM, TimeLSTM
from .softmax import Softmax, SoftmaxWithLoss, TimeSoftmaxWithLoss

__all__ = [
    "LSTM",
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
    "TimeDropout",
    "TimeEmbedding",
    "TimeLSTM",
    "TimeSoftmaxWithLoss",
    "WeightSum",
]
