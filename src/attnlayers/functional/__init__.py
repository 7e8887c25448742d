"""The maths: pure pairs, ``x(...) -> (out, saved)`` and ``x_backward(saved, dout) -> gradients``."""

from .activation import gelu, gelu_backward, relu, relu_backward, swiglu, swiglu_backward
from .affine import affine, affine_backward
from .alibi import alibi, alibi_backward, alibi_slopes
from .attention import attention, attention_backward
from .attention_weights import attention_weights, attention_weights_backward
from .cross_entropy import cross_entropy, cross_entropy_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward
from .gru import gru, gru_backward
from .normalization import layer_norm, layer_norm_backward, rms_norm, rms_norm_backward
from .recurrent import lstm, lstm_backward
from .rnn import rnn, rnn_backward
from .rotary import rotary, rotary_backward
from .scored_attention import (
    additive_attention,
    additive_attention_backward,
    local_attention,
    local_attention_backward,
)
from .softmax import softmax, softmax_backward
from .weighted_sum import weighted_sum, weighted_sum_backward

__all__ = [
    "additive_attention",
    "additive_attention_backward",
    "affine",
    "affine_backward",
    "alibi",
    "alibi_backward",
    "alibi_slopes",
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
    "gelu",
    "gelu_backward",
    "gru",
    "gru_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_attention",
    "local_attention_backward",
    "lstm",
    "lstm_backward",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "rnn",
    "rnn_backward",
    "rotary",
    "rotary_backward",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
    "weighted_sum",
    "weighted_sum_backward",
]
