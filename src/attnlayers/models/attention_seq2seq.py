"""Sequence to sequence with attention: chapter 8 of the book, for sequences of any length."""

from math import sqrt

import numpy as np

import attnbackends
from attnbackends import Array, Backend

from ..layers import TimeAffine, TimeAttention, TimeEmbedding, TimeLSTM, TimeSoftmaxWithLoss
from ._base import Network


class AttentionEncoder(Network):
    """Embedding and LSTM; hands on the states of all steps."""

    def __init__(self, vocab_size: int, wordvec_size: int, hidden_size: int, draw: "_Initial") -> None:
        self.embed = draw.embedding(vocab_size, wordvec_size)
        self.lstm = draw.lstm(wordvec_size, hidden_size)
        super().__init__(draw.backend, embed=self.embed, lstm=self.lstm)

    def forward(self, xs: Array, mask: Array | None = None) -> Array:
        """xs (N, T) of ids, mask (N, T) with False = padding -> hs (N, T, H)."""
        return self.lstm.forward(self.embed.forward(xs), mask)

    def backward(self, dhs: Array) -> None:
        """dhs (N, T, H) -> None, since ids have no gradient."""
        self.embed.backward(self.lstm.backward(dhs))


class AttentionDecoder(Network):
    """LSTM that starts from the encoder's last state, and attention over all of them."""

    def __init__(self, vocab_size: int, wordvec_size: int, hidden_size: int, draw: "_Initial") -> None:
        self.embed = draw.embedding(vocab_size, wordvec_size)
        self.lstm = draw.lstm(wordvec_size, hidden_size, stateful=True)
        self.attention = TimeAttention()
        self.affine = draw.affine(2 * hidden_size, vocab_size)
        super().__init__(draw.backend, embed=self.embed, lstm=self.lstm, attention=self.attention, affine=self.affine)

    def forward(self, xs: Array, enc_hs: Array, mask: Array | None = None) -> Array:
        """xs (N, T_dec) of ids, enc_hs (N, T_enc, H), mask (N, T_enc) -> scores (N, T_dec, V)."""
        self.begin(enc_hs)
        return self.step(xs, enc_hs, mask)

    def backward(self, dscore: Array) -> Array:
        """dscore (N, T_dec, V) -> denc_hs (N, T_enc, H)."""
        dboth = self.affine.backward(dscore)  # (N, T_dec, 2H)
        H = dboth.shape[-1] // 2
        denc_hs, ddec_hs = self.attention.backward(dboth[:, :, :H])
        ddec_hs += dboth[:, :, H:]
        self.embed.backward(self.lstm.backward(ddec_hs))
        denc_hs[:, -1, :] += self.lstm.dh
        return denc_hs

    def begin(self, enc_hs: Array) -> None:
        """Start from the encoder's last state; padding left it as it was after the last token."""
        self.lstm.set_state(enc_hs[:, -1, :])

    def step(self, xs: Array, enc_hs: Array, mask: Array | None = None) -> Array:
        """Go on from where the last step ended; arguments as in `forward`."""
        dec_hs = self.lstm.forward(self.embed.forward(xs))
        c = self.attention.forward(enc_hs, dec_hs, mask)
        return self.affine.forward(self.backend.xp.concat((c, dec_hs), axis=2))


class AttentionSeq2seq(Network):
    """Encoder and decoder LSTM with attention between them.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size : int
        V, D and H.
    seed : int
        Of the initial weights; they are drawn on the host, so that every device starts alike.
    backend : Backend, optional
        Default: the one that the environment chose.

    References
    ----------
    Deep Learning from Scratch 2, section 8.2.
    """

    def __init__(
        self, vocab_size: int, wordvec_size: int, hidden_size: int, *, seed: int = 0, backend: Backend | None = None
    ) -> None:
        draw = _Initial(np.random.default_rng(seed), backend or attnbackends.backend)
        self.encoder = AttentionEncoder(vocab_size, wordvec_size, hidden_size, draw)
        self.decoder = AttentionDecoder(vocab_size, wordvec_size, hidden_size, draw)
        self.loss = TimeSoftmaxWithLoss()
        super().__init__(draw.backend, encoder=self.encoder, decoder=self.decoder)

    def forward(self, sources: Array, inputs: Array, labels: Array, source_mask: Array | None = None) -> Array:
        """Mean loss of predicting `labels` from `sources` and what comes before.

        Parameters
        ----------
        sources : integer array (N, T_enc)
        inputs : integer array (N, T_dec)
            What the decoder reads.
        labels : integer array (N, T_dec)
            What it must answer; -1 does not count.
        source_mask : boolean array (N, T_enc), optional
            False where `sources` is padding, which stands on the right.

        Returns
        -------
        loss : array ()
            On the device.
        """
        enc_hs = self.encoder.forward(sources, source_mask)
        return self.loss.forward(self.decoder.forward(inputs, enc_hs, source_mask), labels)

    def backward(self, dout: float = 1.0) -> None:
        """Gradients of all parameters."""
        self.encoder.backward(self.decoder.backward(self.loss.backward(dout)))

    def generate(
        self, sources: Array, start_id: int, end_id: int, max_length: int, source_mask: Array | None = None
    ) -> tuple[Array, Array]:
        """The most probable token at every step, for a whole batch.

        Parameters
        ----------
        sources : integer array (N, T_enc)
        start_id, end_id : int
            What the decoder reads first, and what ends an answer.
        max_length : int
            Steps at most.
        source_mask : boolean array (N, T_enc), optional

        Returns
        -------
        ids : integer array (N, L), L <= max_length
            After its `end_id` an answer goes on with arbitrary ids until the longest one ends.
        weights : array (N, L, T_enc)
            Attention weights of each step.
        """
        xp = self.backend.xp
        enc_hs = self.encoder.forward(sources, source_mask)
        self.decoder.begin(enc_hs)
        last = xp.full_like(sources[:, :1], start_id)
        ended = last != start_id
        ids: list[Array] = []
        weights: list[Array] = []
        for _ in range(max_length):
            scores = self.decoder.step(last, enc_hs, source_mask)  # (N, 1, V)
            last = xp.astype(xp.argmax(scores, axis=-1), sources.dtype, copy=False)
            ids.append(last)
            weights.extend(self.decoder.attention.attention_weights or ())
            ended = ended | (last == end_id)
            if (self.backend.reading_is_free or len(ids) % 16 == 0) and bool(xp.all(ended)):
                break
        return xp.concat(ids, axis=1), xp.stack(weights, axis=1)


class _Initial:
    """Initial weights: the book's, but for the embeddings.

    The book divides normal numbers by 100 there. Left as they are the same model learns four times as fast: on
    the dates it passes 99% in the first epoch instead of the fourth (benchmarks/NOTES.md).
    """

    def __init__(self, rng: np.random.Generator, backend: Backend) -> None:
        self.rng = rng
        self.backend = backend

    def normal(self, rows: int, columns: int, divisor: float) -> Array:
        values = self.rng.standard_normal((rows, columns)) / divisor
        return self.backend.asarray(values.astype(np.float32))

    def zeros(self, length: int) -> Array:
        return self.backend.asarray(np.zeros(length, dtype=np.float32))

    def embedding(self, rows: int, columns: int) -> TimeEmbedding:
        return TimeEmbedding(self.normal(rows, columns, 1))

    def lstm(self, size: int, hidden: int, *, stateful: bool = False) -> TimeLSTM:
        Wx, Wh = self.normal(size, 4 * hidden, sqrt(size)), self.normal(hidden, 4 * hidden, sqrt(hidden))
        return TimeLSTM(Wx, Wh, self.zeros(4 * hidden), stateful)

    def affine(self, rows: int, columns: int) -> TimeAffine:
        return TimeAffine(self.normal(rows, columns, sqrt(rows)), self.zeros(columns))
