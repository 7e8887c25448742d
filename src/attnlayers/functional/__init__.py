"""The maths: pure pairs, ``x(...) -> (out, saved)`` and ``x_backward(saved, dout) -> gradients``.

Gradients are those of the call as it was made. What a function returned may be written to before its backward, and so
may masks, biases, lengths and positions that it was given. Other floating point arguments and ids are large and not
copied: those must stay as they are until backward is done.
"""

from attnbackends import quiet

from ._activation import gelu, gelu_backward, relu, relu_backward, swiglu, swiglu_backward
from ._additive_attention import additive_attention, additive_attention_backward
from ._affine import affine, affine_backward
from ._alibi import alibi, alibi_backward, alibi_slopes
from ._attention import attention, attention_backward, attention_weights, attention_weights_backward
from ._cross_entropy import cross_entropy, cross_entropy_backward
from ._dropout import dropout, dropout_backward
from ._embedding import embedding, embedding_backward
from ._gru import gru, gru_backward
from ._local_attention import local_attention, local_attention_backward
from ._lstm import lstm, lstm_backward
from ._normalization import layer_norm, layer_norm_backward, rms_norm, rms_norm_backward
from ._rnn import rnn, rnn_backward
from ._rotary import rotary, rotary_backward
from ._softmax import softmax, softmax_backward
from ._weighted_sum import weighted_sum, weighted_sum_backward

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

for _name in __all__:  # results, where NumPy would report
    _function = quiet(globals()[_name])
    _function.__module__ = __name__  # where pickle finds it
    globals()[_name] = _function
