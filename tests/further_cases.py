"""The layers of the Transformer and of Luong and Bahdanau, for `cases.CASES`."""

from collections.abc import Callable
from typing import Any

from support import Draw

from attnlayers import (
    AdditiveAttention,
    FeedForward,
    GeneralAttention,
    Layer,
    LayerNorm,
    LearnedPositions,
    LocalAttention,
    MultiHeadAttention,
    RMSNorm,
    SinusoidalPositions,
    TimeAdditiveAttention,
    TimeGeneralAttention,
    TimeLocalAttention,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

Inputs = tuple[Any, ...]
N, T_DEC, T, H, D, A = 2, 3, 5, 7, 12, 11
HEADS, SIZE, F = 3, 4, 13


def attention(d: Draw, context: int = D, key_heads: int = HEADS, bias: bool = True, **options: Any) -> Any:
    """D in HEADS heads of SIZE, values of 2."""
    shapes = (D, HEADS * SIZE), (context, key_heads * SIZE), (context, key_heads * 2), (HEADS * 2, D)
    weights = [d(*shape) for shape in shapes]
    biases = [d(shape[1]) for shape in shapes] if bias else []
    return MultiHeadAttention(*weights, *biases, heads=HEADS, key_heads=key_heads, **options)


def feed_forward(d: Draw, activation: str = "relu") -> FeedForward:
    gate = {"W_gate": d(D, F), "b_gate": d(F)} if activation == "swiglu" else {}
    return FeedForward(d(D, F), d(F, D), d(F), d(D), activation=activation, **gate)


def small(layer: Any) -> Any:
    """The layer with smaller weights, as in a network: softmax does not saturate, and differences are exact."""
    for inner in layer.layers.values():
        xp = layer.backend.xp
        inner.params = [xp.astype(param * 0.3, param.dtype) for param in inner.params]
    layer.params = [param for inner in layer.layers.values() for param in inner.params]
    return layer


def norm(d: Draw) -> LayerNorm:
    return LayerNorm(d(D), d(D))


def encoder_layer(d: Draw, **options: Any) -> TransformerEncoderLayer:
    return TransformerEncoderLayer(
        small(attention(d, bias=False)), small(feed_forward(d, "gelu")), norm(d), norm(d), **options
    )


def decoder_layer(d: Draw, **options: Any) -> TransformerDecoderLayer:
    attentions = (small(attention(d, bias=False)) for _ in range(2))
    parts = *attentions, small(feed_forward(d, "gelu")), norm(d), norm(d), norm(d)
    return TransformerDecoderLayer(*parts, **options)


def additive(d: Draw) -> Inputs:
    return d(H, A), d(D, A), d(A), d(A)


def local(d: Draw) -> Inputs:
    return d(D, H), d(D, A), d(A, 1)


FURTHER: dict[str, Callable[[Draw], tuple[Layer, Inputs]]] = {
    "MultiHeadAttention": lambda d: (attention(d), (d(N, T, D),)),
    "MultiHeadAttention, window": lambda d: (attention(d, bias=False, window=(1, None)), (d(N, T, D),)),
    "MultiHeadAttention, cross": lambda d: (attention(d, H, bias=False), (d(N, T_DEC, D), d(N, T, H), d.mask(N, T))),
    "MultiHeadAttention, grouped": lambda d: (attention(d, key_heads=1, rotary="half"), (d(N, T, D),)),
    "MultiHeadAttention, dropout": lambda d: (attention(d, dropout=0.3, seed=4, softcap=2.0), (d(N, T, D),)),
    "LayerNorm": lambda d: (norm(d), (d(N, T, D),)),
    "RMSNorm": lambda d: (RMSNorm(d(D)), (d(N, T, D),)),
    "FeedForward": lambda d: (feed_forward(d, "gelu"), (d(N, T, D),)),
    "FeedForward, tanh": lambda d: (feed_forward(d, "gelu_tanh"), (d(N, T, D),)),
    "FeedForward, swiglu": lambda d: (feed_forward(d, "swiglu"), (d(N, T, D),)),
    "LearnedPositions": lambda d: (LearnedPositions(d(A, D)), (d(N, T, D),)),
    "SinusoidalPositions": lambda d: (SinusoidalPositions(), (d(N, T, D),)),
    "TransformerEncoderLayer": lambda d: (encoder_layer(d), (d(N, T, D), d.mask(N, T))),
    "TransformerEncoderLayer, post-norm": lambda d: (encoder_layer(d, pre_norm=False), (d(N, T, D),)),
    "TransformerEncoderLayer, dropout": lambda d: (encoder_layer(d, dropout=0.3), (d(N, T, D),)),
    "TransformerDecoderLayer": lambda d: (decoder_layer(d), (d(N, T_DEC, D), d(N, T, D), d.mask(N, T))),
    "TransformerDecoderLayer, post-norm": lambda d: (decoder_layer(d, pre_norm=False), (d(N, T_DEC, D), d(N, T, D))),
    "TransformerEncoder": lambda d: (TransformerEncoder([encoder_layer(d) for _ in "ab"], norm(d)), (d(N, T, D),)),
    "TransformerDecoder": lambda d: (
        TransformerDecoder([decoder_layer(d) for _ in "ab"], norm(d)),
        (d(N, T_DEC, D), d(N, T, D), d.mask(N, T)),
    ),
    "GeneralAttention": lambda d: (GeneralAttention(d(D, H)), (d(N, T, H), d(N, D), d.mask(N, T))),
    "AdditiveAttention": lambda d: (AdditiveAttention(*additive(d)), (d(N, T, H), d(N, D), d.mask(N, T))),
    "LocalAttention": lambda d: (LocalAttention(*local(d), width=2), (d(N, T, H), d(N, D))),
    "TimeGeneralAttention": lambda d: (TimeGeneralAttention(d(D, H)), (d(N, T, H), d(N, T_DEC, D))),
    "TimeGeneralAttention, masked": lambda d: (
        TimeGeneralAttention(d(D, H)),
        (d(N, T, H), d(N, T_DEC, D), d.mask(N, T)),
    ),
    "TimeAdditiveAttention": lambda d: (TimeAdditiveAttention(*additive(d)), (d(N, T, H), d(N, T_DEC, D))),
    "TimeAdditiveAttention, masked": lambda d: (
        TimeAdditiveAttention(*additive(d)),
        (d(N, T, H), d(N, T_DEC, D), d.mask(N, T)),
    ),
    "TimeLocalAttention": lambda d: (TimeLocalAttention(*local(d), width=2), (d(N, T, H), d(N, T_DEC, D))),
    "TimeLocalAttention, masked": lambda d: (
        TimeLocalAttention(*local(d), width=2),
        (d(N, T, H), d(N, T_DEC, D), d.mask(N, T)),
    ),
}
