"""The maths: pure pairs, ``x(...) -> (out, saved)`` and ``x_backward(saved, dout) -> gradients``."""

from .affine import affine, affine_backward
from .attention import (
    attention,
    attention_backward,
    attention_weights,
    attention_weights_backward,
)
from .cross_entropy import cross_entropy, cross_entropy_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward
from .gru import gru, gru_backward
from .recurrent import lstm, lstm_backward
from .rnn import rnn, rnn_backward
from .softmax import softmax, softmax_backward
from .weighted_sum import weighted_sum, weighted_sum_backward

__all__ = [
    "affine",
    "affine_backward",
    "attention",
    "attention_backward",
    "attention_weights",
    "attention_weights_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "gru",
    "gru_backward",
    "lstm",
    "lstm_backward",
    "rnn",
    "rnn_backward",
    "softmax",
    "softmax_backward",
    "weighted_sum",
    "weighted_sum_backward",
]
