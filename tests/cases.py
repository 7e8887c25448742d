"""Every layer with inputs, once for all tests that hold for every layer. Axis lengths are primes, all different."""

from collections.abc import Callable
from typing import Any

from further_cases import FURTHER
from support import Draw

from attnlayers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Attention,
    AttentionWeight,
    Dropout,
    Embedding,
    Layer,
    Softmax,
    SoftmaxWithLoss,
    TimeAffine,
    TimeAttention,
    TimeBiLSTM,
    TimeDropout,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
    TimeSoftmaxWithLoss,
    WeightSum,
)

N, T_DEC, T, H, D, V = 2, 3, 5, 7, 11, 13

Inputs = tuple[Any, ...]


def weights(draw: Draw, gates: int, D: int = D, H: int = H) -> Inputs:
    return draw(D, gates * H), draw(H, gates * H), draw(gates * H)


def lstm_weights(draw: Draw, D: int = D, H: int = H) -> Inputs:
    return weights(draw, 4, D, H)


def stateful_lstm(draw: Draw) -> TimeLSTM:
    layer = TimeLSTM(*lstm_weights(draw), stateful=True)
    layer.set_state(draw(N, H), draw(N, H))
    return layer


# What is in `inputs` beyond the floating point arrays that `backward` answers to: ids, and masks.
CASES: dict[str, Callable[[Draw], tuple[Layer, Inputs]]] = {
    "WeightSum": lambda d: (WeightSum(), (d(N, T, H), d(N, T))),
    "AttentionWeight": lambda d: (AttentionWeight(), (d(N, T, H), d(N, H))),
    "AttentionWeight, masked": lambda d: (AttentionWeight(), (d(N, T, H), d(N, H), d.mask(N, T))),
    "Attention": lambda d: (Attention(), (d(N, T, H), d(N, H))),
    "Attention, masked": lambda d: (Attention(), (d(N, T, H), d(N, H), d.mask(N, T))),
    "TimeAttention": lambda d: (TimeAttention(), (d(N, T, H), d(N, T_DEC, H))),
    "TimeAttention, masked": lambda d: (TimeAttention(), (d(N, T, H), d(N, T_DEC, H), d.mask(N, T))),
    "Affine": lambda d: (Affine(d(D, H), d(H)), (d(N, D),)),
    "TimeAffine": lambda d: (TimeAffine(d(D, H), d(H)), (d(N, T, D),)),
    "Dropout": lambda d: (Dropout(0.3, seed=4), (d(N, D),)),
    "TimeDropout": lambda d: (TimeDropout(0.3, seed=4), (d(N, T, D),)),
    "Embedding": lambda d: (Embedding(d(V, D)), (d.ids(V, N),)),
    "TimeEmbedding": lambda d: (TimeEmbedding(d(V, D)), (d.ids(V, N, T),)),
    "LSTM": lambda d: (LSTM(*lstm_weights(d)), (d(N, D), d(N, H), d(N, H))),
    "TimeLSTM": lambda d: (TimeLSTM(*lstm_weights(d)), (d(N, T, D),)),
    "TimeLSTM, masked": lambda d: (TimeLSTM(*lstm_weights(d)), (d(N, T, D), d.mask(N, T))),
    "TimeLSTM, stateful": lambda d: (stateful_lstm(d), (d(N, T, D),)),
    "TimeBiLSTM": lambda d: (TimeBiLSTM(*lstm_weights(d), *lstm_weights(d)), (d(N, T, D),)),
    "TimeBiLSTM, masked": lambda d: (
        TimeBiLSTM(*lstm_weights(d), *lstm_weights(d)),
        (d(N, T, D), d.mask(N, T)),
    ),
    "RNN": lambda d: (RNN(*weights(d, 1)), (d(N, D), d(N, H))),
    "TimeRNN": lambda d: (TimeRNN(*weights(d, 1)), (d(N, T, D),)),
    "TimeRNN, masked": lambda d: (TimeRNN(*weights(d, 1)), (d(N, T, D), d.mask(N, T))),
    "GRU": lambda d: (GRU(*weights(d, 3)), (d(N, D), d(N, H))),
    "TimeGRU": lambda d: (TimeGRU(*weights(d, 3)), (d(N, T, D),)),
    "TimeGRU, masked": lambda d: (TimeGRU(*weights(d, 3)), (d(N, T, D), d.mask(N, T))),
    "Softmax": lambda d: (Softmax(), (d(N, T, V),)),
    "SoftmaxWithLoss": lambda d: (SoftmaxWithLoss(), (d(N, V), d.ids(V, N))),
    "TimeSoftmaxWithLoss": lambda d: (TimeSoftmaxWithLoss(), (d(N, T, V), d.ids(V + 1, N, T) - 1)),
    **FURTHER,
}


def name_of(case: str) -> str:
    """The class of a case."""
    return case.partition(",")[0]
