"""Attention layers with explicit forward and backward, written once for NumPy and CuPy.

>>> import numpy as np
>>> from attnlayers import TimeAttention
>>> layer = TimeAttention()
>>> layer.forward(np.ones((2, 5, 3)), np.ones((2, 4, 3))).shape
(2, 4, 3)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import functional, layers
    from ._gradcheck import GradientError, gradcheck
    from .layers import (
        GRU,
        LSTM,
        RNN,
        AdditiveAttention,
        Affine,
        Attention,
        AttentionWeight,
        Dropout,
        Embedding,
        FeedForward,
        GeneralAttention,
        Initializer,
        KVCache,
        Layer,
        LayerNorm,
        LearnedPositions,
        LocalAttention,
        MultiHeadAttention,
        RMSNorm,
        SinusoidalPositions,
        Softmax,
        SoftmaxWithLoss,
        TimeAdditiveAttention,
        TimeAffine,
        TimeAttention,
        TimeBiLSTM,
        TimeDropout,
        TimeEmbedding,
        TimeGeneralAttention,
        TimeGRU,
        TimeLocalAttention,
        TimeLSTM,
        TimeRNN,
        TimeSoftmaxWithLoss,
        TransformerDecoder,
        TransformerDecoderLayer,
        TransformerEncoder,
        TransformerEncoderLayer,
        WeightSum,
    )
    from .models._saving import load, save

__version__ = "0.1.0"
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
    "GradientError",
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
    "functional",
    "gradcheck",
    "layers",
    "load",
    "save",
]


_HOMES = {"GradientError": "_gradcheck", "gradcheck": "_gradcheck", "load": "models._saving", "save": "models._saving"}


def __getattr__(name: str) -> Any:
    """Load at the first use: the command line must be able to start where the backend cannot."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("functional", "layers"):
        return import_module(f".{name}", __name__)
    home = _HOMES.get(name, "layers")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
