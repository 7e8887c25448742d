"""Sequence to sequence with attention: chapter 8 of the book, for sequences of any length."""

from attnbackends import Array, Backend

from ..functional.integers import sizes
from ..layers import (
    Initializer,
    TimeAdditiveAttention,
    TimeAffine,
    TimeAttention,
    TimeDropout,
    TimeEmbedding,
    TimeGeneralAttention,
    TimeLSTM,
    TimeSoftmaxWithLoss,
)
from ._base import Network
from ._translator import Translator


class AttentionEncoder(Network):
    """Embedding and LSTM; hands on the states of all steps."""

    def __init__(
        self, vocab_size: int, embedding_size: int, hidden_size: int, draw: Initializer, dropout: float = 0.0
    ) -> None:
        self.embed = TimeEmbedding.create(vocab_size, embedding_size, initializer=draw)
        self.dropout = TimeDropout(dropout)
        self.lstm = TimeLSTM.create(embedding_size, hidden_size, initializer=draw)
        super().__init__(draw.backend, embed=self.embed, dropout=self.dropout, lstm=self.lstm)

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T) of ids, mask (N, T) with False = padding -> hs (N, T, H)."""
        return self.lstm.forward(self.dropout.forward(self.embed.forward(xs)), mask)

    def backward(self, dhs: Array) -> None:
        """dhs (N, T, H) -> None, since ids have no gradient."""
        self.embed.backward(self.dropout.backward(self.lstm.backward(dhs)))


class AttentionDecoder(Network):
    """LSTM that starts from the encoder's last state, and attention over all of them."""

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        draw: Initializer,
        attention: str = "dot",
        dropout: float = 0.0,
    ) -> None:
        self.embed = TimeEmbedding.create(vocab_size, embedding_size, initializer=draw)
        self.lstm = TimeLSTM.create(embedding_size, hidden_size, stateful=True, initializer=draw)
        self.attention = _attention(attention, hidden_size, draw)
        self.affine = TimeAffine(draw.matrix(2 * hidden_size, vocab_size, "fan_in"), draw.full(0, vocab_size))
        self.dropout, self.last_dropout = TimeDropout(dropout), TimeDropout(dropout)
        super().__init__(
            draw.backend,
            embed=self.embed,
            dropout=self.dropout,
            lstm=self.lstm,
            attention=self.attention,
            last_dropout=self.last_dropout,
            affine=self.affine,
        )

    def forward(self, xs: Array, enc_hs: Array, mask: Array | None = None) -> Array:
        """xs (N, T_dec) of ids, enc_hs (N, T_enc, H), mask (N, T_enc) -> scores (N, T_dec, V)."""
        self.begin(enc_hs)
        return self.step(xs, enc_hs, mask)

    def backward(self, dscore: Array) -> Array:
        """dscore (N, T_dec, V) -> denc_hs (N, T_enc, H)."""
        dboth = self.last_dropout.backward(self.affine.backward(dscore))  # (N, T_dec, 2H)
        H = dboth.shape[-1] // 2
        denc_hs, ddec_hs = self.attention.backward(dboth[:, :, :H])
        ddec_hs += dboth[:, :, H:]
        self.embed.backward(self.dropout.backward(self.lstm.backward(ddec_hs)))
        denc_hs[:, -1, :] += self.lstm.dh
        return denc_hs

    def begin(self, enc_hs: Array) -> None:
        """Start from the encoder's last state; padding left it as it was after the last token."""
        self.lstm.set_state(enc_hs[:, -1, :])

    def step(self, xs: Array, enc_hs: Array, mask: Array | None = None) -> Array:
        """Go on from where the last step ended; arguments as in `forward`."""
        dec_hs = self.lstm.forward(self.dropout.forward(self.embed.forward(xs)))
        c = self.attention.forward(enc_hs, dec_hs, mask)
        return self.affine.forward(self.last_dropout.forward(self.backend.xp.concat((c, dec_hs), axis=2)))


class AttentionSeq2seq(Translator):
    """Encoder and decoder LSTM with attention between them.

    Initial weights are the book's, but for the embeddings, whose normal numbers the book divides by 100. Left as they
    are, the same model learns four times as fast: on the dates it passes 99% in the first epoch instead of the fourth
    (benchmarks/NOTES.md).

    Parameters
    ----------
    vocab_size, embedding_size, hidden_size : int
        V, D and H.
    attention : {"dot", "general", "additive"}
        How encoder and decoder states are compared: as the book does, as Luong's "general", or as Bahdanau does.
    dropout : float
        Share that is dropped of embeddings, and of what the last affine map reads.
    label_smoothing : float
        As in `TimeSoftmaxWithLoss`.
    seed : int
        Seed of the initial weights; they are drawn on the host, so that every device starts alike.
    dtype : str
        What weights are: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, as far as the library has them.
    backend : Backend, optional
        Default: the one that the environment chose.

    References
    ----------
    Deep Learning from Scratch 2, section 8.2.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        attention: str = "dot",
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        dtype: str = "float32",
        backend: Backend | None = None,
    ) -> None:
        draw = Initializer(seed, dtype, backend)
        vocab_size, embedding_size, hidden_size = sizes(
            vocab_size=vocab_size, embedding_size=embedding_size, hidden_size=hidden_size
        )
        self.encoder = AttentionEncoder(vocab_size, embedding_size, hidden_size, draw, dropout)
        self.decoder = AttentionDecoder(vocab_size, embedding_size, hidden_size, draw, attention, dropout)
        self.loss = TimeSoftmaxWithLoss(label_smoothing)
        super().__init__(draw.backend, encoder=self.encoder, decoder=self.decoder, loss=self.loss)
        self.reseed(seed)

    def forward(self, sources: Array, inputs: Array, labels: Array, source_mask: Array | None = None) -> Array:
        self._drop(self.training)
        enc_hs = self.encoder.forward(sources, source_mask)
        return self.loss.forward(self.decoder.forward(inputs, enc_hs, source_mask), labels)

    def backward(self, dout: float = 1.0) -> None:
        """Gradients of all parameters."""
        self.encoder.backward(self.decoder.backward(self.loss.backward(dout)))

    @property
    def attention_weights(self) -> dict[str, Array]:
        """``cross`` of the last forward: (N, 1, 1, T_dec, T_enc)."""
        weights = self.backend.xp.stack(self.decoder.attention.attention_weights or [], axis=1)
        return {"cross": weights[:, None, None, :, :]}

    def begin(self, sources: Array, source_mask: Array | None, max_length: int) -> None:
        self._drop(False)
        self._answered = self.encoder.forward(sources, source_mask), source_mask
        self.decoder.begin(self._answered[0])

    def step(self, last: Array) -> Array:
        return self.decoder.step(last, *self._answered)

    def step_weights(self) -> Array:
        of_steps = self.decoder.attention.attention_weights or []
        return of_steps[-1]

    def reorder(self, rows: Array) -> None:
        lstm, take = self.decoder.lstm, self.backend.xp.take
        lstm.set_state(take(lstm.h, rows, axis=0), take(lstm.c, rows, axis=0))


def _attention(
    kind: str, hidden_size: int, draw: Initializer
) -> TimeAttention | TimeGeneralAttention | TimeAdditiveAttention:
    if kind == "general":
        return TimeGeneralAttention.create(hidden_size, hidden_size, initializer=draw)
    if kind == "additive":
        return TimeAdditiveAttention.create(hidden_size, hidden_size, initializer=draw)
    if kind != "dot":
        raise ValueError(f"`attention` must be dot, general or additive, got {kind!r}")
    return TimeAttention()
