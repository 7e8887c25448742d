"""Layers of a decoder-only Transformer, made of the options of `CausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..functional.integers import integer, sizes
from ..layers import FeedForward, Initializer, LayerNorm, MultiHeadAttention, RMSNorm, TransformerEncoderLayer

NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"layer": LayerNorm, "rms": RMSNorm}

BIASED = {"all": 4, "qkv": 3, "none": 0}
"""How many projections of attention have biases: all four, those to queries, keys and values, or none."""


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were given, held against each other, with what was left out.

    Raises
    ------
    ValueError
        For a size below 1, an option that is not known, or heads that the size of a token's vector is no multiple of.
    """
    o = dict(options)
    o["key_heads"] = o["heads"] if o["key_heads"] is None else o["key_heads"]
    names = "vocab_size", "embedding_size", "heads", "hidden_size", "depth", "max_length", "key_heads"
    o |= zip(names, sizes(**{name: o[name] for name in names}), strict=True)
    if o["head_size"] is None:
        if o["embedding_size"] % o["heads"]:
            raise ValueError(
                f"`embedding_size` must be a multiple of `heads`, got {o['embedding_size']} and {o['heads']}: "
                "or give `head_size`"
            )
        o["head_size"] = o["embedding_size"] // o["heads"]
    (o["head_size"],) = sizes(head_size=o["head_size"])
    for name, known in (("positions", ("learned", "rotary")), ("norm", NORMS), ("attention_bias", BIASED)):
        if o[name] not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {o[name]!r}")
    o["window"] = None if o["window"] is None else integer("window", o["window"], least=1)
    o |= {name: float(o[name]) for name in ("rotary_base", "epsilon", "dropout")}
    return o | {name: bool(o[name]) for name in ("feed_forward_bias", "tied")}


def block_of(o: Mapping[str, Any], draw: Initializer) -> TransformerEncoderLayer:
    """A layer of the stack with initial weights."""
    embedding_size, queries, keys = (
        o["embedding_size"],
        o["heads"] * o["head_size"],
        o["key_heads"] * o["head_size"],
    )
    shapes = (embedding_size, queries), (embedding_size, keys), (embedding_size, keys), (queries, embedding_size)
    biased = BIASED[o["attention_bias"]]
    # Smaller where something is added to the residual stream, so that depth does not widen it (GPT-2, section 2.3).
    scales = (0.02, 0.02, 0.02, 0.02 / (2 * o["depth"]) ** 0.5)
    weights = [draw.matrix(*shape, usual=scale) for shape, scale in zip(shapes, scales, strict=True)]
    attention = MultiHeadAttention(
        *weights,
        *(draw.full(0, shape[1]) for shape in shapes[:biased]),
        heads=o["heads"],
        key_heads=o["key_heads"],
        rotary="half" if o["positions"] == "rotary" else None,
        rotary_base=o["rotary_base"],
        window=None if o["window"] is None else (o["window"] - 1, 0),
        dropout=o["dropout"],
    )
    gated = o["activation"] == "swiglu"
    up = [draw.matrix(embedding_size, o["hidden_size"], usual=0.02) for _ in range(1 + gated)]
    down = draw.matrix(o["hidden_size"], embedding_size, usual=scales[-1])
    b1, b2, *b_gate = (
        [draw.full(0, size) for size in (o["hidden_size"], embedding_size, o["hidden_size"])]
        if o["feed_forward_bias"]
        else [None] * 3
    )
    further = {"W_gate": up[1], "b_gate": b_gate[0]} if gated else {}
    feed_forward = FeedForward(up[0], down, b1, b2, activation=o["activation"], **further)
    norms = norm_of(o, draw), norm_of(o, draw)
    return TransformerEncoderLayer(attention, feed_forward, *norms, dropout=o["dropout"])


def norm_of(o: Mapping[str, Any], draw: Initializer) -> LayerNorm | RMSNorm:
    """A norm of the residual stream, with gain 1."""
    layer = NORMS[o["norm"]].create(o["embedding_size"], initializer=draw)
    layer.epsilon = o["epsilon"]
    return layer
