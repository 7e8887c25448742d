"""Attention layers with explicit forward and backward, written once for NumPy and CuPy.

>>> import numpy as np
>>> from attnlayers import TimeAttention
>>> layer = TimeAttention()
>>> layer.forward(np.ones((2, 5, 3)), np.ones((2, 4, 3))).shape
(2, 4, 3)
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import book, data, distributed, functional, layers, models, training
    from ._explain import explain
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
    from .page import view

__version__ = "0.2.0"
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
    "book",
    "data",
    "distributed",
    "explain",
    "functional",
    "gradcheck",
    "layers",
    "load",
    "models",
    "save",
    "training",
    "view",
]

_HOMES = {"GradientError": "_gradcheck", "gradcheck": "_gradcheck", "explain": "_explain", "view": "page"}
_HOMES |= dict.fromkeys(("load", "save"), "models._saving")
_PACKAGES = ("book", "data", "distributed", "functional", "layers", "models", "training")


def __getattr__(name: str) -> Any:
    """Load at the first use: the command line must be able to start where the backend cannot."""
    if name not in __all__:
        home = _elsewhere(name)
        if home and sys._getframe(1).f_code.co_name == "_handle_fromlist":
            # An import statement, which would drop the message of an AttributeError.
            raise ImportError(f"{name} is in {home}: from {home} import {name}", name=home)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f": it is in {home}" if home else ""))
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    value = getattr(import_module(f".{_HOMES.get(name, 'layers')}", __name__), name)
    globals()[name] = value
    return value


def _elsewhere(name: str) -> str | None:
    """The package whose public name this is, where it is one."""
    for package in () if name.startswith("_") else ("training", "models", "data", "functional"):
        try:
            module = import_module(f".{package}", __name__)
        except RuntimeError:  # there is no backend
            return None
        if name in module.__all__:
            return module.__name__
    return None


def __dir__() -> list[str]:
    return sorted(__all__)
