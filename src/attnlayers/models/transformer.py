"""The Transformer: sequence to sequence with attention alone."""

from typing import Any

from attnbackends import Array, Backend

from ..functional.integers import sizes
from ..layers import (
    Initializer,
    SinusoidalPositions,
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeSoftmaxWithLoss,
    TransformerDecoder,
    TransformerEncoder,
)
from ._translator import Translator


class Transformer(Translator):
    """Encoder and decoder of the Transformer between embeddings and one affine map to scores.

    Parameters
    ----------
    vocab_size : int
        V, one vocabulary for both sides.
    embedding_size, heads, hidden_size, depth : int
        Size of a token's vector, attention heads, size within a feed-forward network, and the number of layers of the
        encoder and of the decoder.
    dropout : float
        Share that is dropped of embeddings, of attention weights and of what is added to the residual stream.
    label_smoothing : float
        As in `TimeSoftmaxWithLoss`.
    seed : int
        Seed of the initial weights; they are drawn on the host, so that every device starts alike.
    dtype : str
        What weights are: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, as far as the library has them.
    backend : Backend, optional
        Default: the one that the environment chose.
    **options
        Further ones of `TransformerEncoderLayer.create`: ``activation``, ``norm``, ``pre_norm``, ``use_bias``.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017.

    Examples
    --------
    >>> from attnbackends import xp
    >>> model = Transformer(11, embedding_size=8, heads=2, hidden_size=16, depth=1)
    >>> ids, weights = model.generate(xp.asarray([[3, 4, 5]]), start_id=1, end_id=2, max_length=4)
    >>> weights.shape == (1, ids.shape[1], 1, 2, 3)    # (N, L, layers, heads, T_enc)
    True
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 128,
        heads: int = 4,
        hidden_size: int = 256,
        depth: int = 2,
        *,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        dtype: str = "float32",
        backend: Backend | None = None,
        **options: Any,
    ) -> None:
        draw = Initializer(seed, dtype, backend)
        vocab_size, embedding_size = sizes(vocab_size=vocab_size, embedding_size=embedding_size)
        options = dict[str, Any](activation="relu", dropout=dropout) | options
        self.source_embed = TimeEmbedding.create(vocab_size, embedding_size, initializer=draw)
        self.target_embed = TimeEmbedding.create(vocab_size, embedding_size, initializer=draw)
        self.source_positions, self.target_positions = SinusoidalPositions(), SinusoidalPositions()
        self.encoder = TransformerEncoder.create(depth, embedding_size, heads, hidden_size, initializer=draw, **options)
        self.decoder = TransformerDecoder.create(depth, embedding_size, heads, hidden_size, initializer=draw, **options)
        self.output = TimeAffine.create(embedding_size, vocab_size, initializer=draw)
        self.loss = TimeSoftmaxWithLoss(label_smoothing)
        self.source_dropout, self.target_dropout = TimeDropout(dropout), TimeDropout(dropout)
        super().__init__(
            draw.backend,
            source_embed=self.source_embed,
            target_embed=self.target_embed,
            encoder=self.encoder,
            decoder=self.decoder,
            output=self.output,
            source_dropout=self.source_dropout,
            target_dropout=self.target_dropout,
            loss=self.loss,
        )
        self.reseed(seed)

    def forward(self, sources: Array, inputs: Array, labels: Array, source_mask: Array | None = None) -> Array:
        self._drop(self.training)
        context = self._encode(sources, source_mask)
        y = self.target_dropout.forward(self.target_positions.forward(self.target_embed.forward(inputs)))
        return self.loss.forward(self.output.forward(self.decoder.forward(y, context, source_mask)), labels)

    def backward(self, dout: float = 1.0) -> None:
        """Gradients of all parameters."""
        dy, dcontext = self.decoder.backward(self.output.backward(self.loss.backward(dout)))
        self.target_embed.backward(self.target_positions.backward(self.target_dropout.backward(dy)))
        dx = self.source_dropout.backward(self.encoder.backward(dcontext))
        self.source_embed.backward(self.source_positions.backward(dx))

    @property
    def attention_weights(self) -> dict[str, Array]:
        """``encoder``, ``decoder`` (self-attention) and ``cross`` of the last forward: (N, layers, heads, T_q, T_k)."""
        of_layers = {
            "encoder": [layer.attention for layer in self.encoder.stack],
            "decoder": [layer.self_attention for layer in self.decoder.stack],
            "cross": [layer.cross_attention for layer in self.decoder.stack],
        }
        stack = self.backend.xp.stack
        return {name: stack([one.attention_weights for one in found], axis=1) for name, found in of_layers.items()}

    def _encode(self, sources: Array, source_mask: Array | None) -> Array:
        x = self.source_positions.forward(self.source_embed.forward(sources))
        return self.encoder.forward(self.source_dropout.forward(x), source_mask)

    # -- step by step

    def begin(self, sources: Array, source_mask: Array | None, max_length: int) -> None:
        self._drop(False)
        self._caches = self.decoder.new_cache(self._encode(sources, source_mask), max_length)
        self._source_mask = source_mask
        self._position = 0

    def step(self, last: Array) -> Array:
        y = self.target_positions.forward(self.target_embed.forward(last), self._position)
        self._position += int(last.shape[1])
        return self.output.forward(self.decoder.step(y, self._caches, self._source_mask))

    def step_weights(self) -> Array:
        of_layers = [layer.cross_attention.attention_weights[:, :, -1, :] for layer in self.decoder.stack]
        return self.backend.xp.stack(of_layers, axis=1)  # (N, layers, heads, T_enc)

    def reorder(self, rows: Array) -> None:
        for own, _ in self._caches:
            own.reorder(rows)
