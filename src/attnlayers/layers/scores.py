"""Attention of Luong and of Bahdanau: other scores than the dot product, for one decoder step or for all at once."""

from typing import Any, Self

from attnbackends import Array

from .. import functional as F
from ..functional._check import check
from ._base import Layer
from ._composite import Initial


class _TimeScores(Layer):
    """What the forms over all decoder steps share."""

    @property
    def attention_weights(self) -> list[Array] | None:
        """T_dec arrays (N, T_enc), of the last forward."""
        if self._saved is None:
            return None
        weights = self._saved[0].weights
        return [weights[:, t, :] for t in range(weights.shape[1])]

    @staticmethod
    def _check(hs_enc: Array, hs_dec: Array, mask: Array | None) -> None:
        check(hs_enc=(hs_enc, "N T_enc H_enc"), hs_dec=(hs_dec, "N T_dec H_dec"), mask=(mask, "N T_enc: bool"))


class _OneStep(Layer):
    """One decoder step, by the form over all of them."""

    _all_steps: Any
    _of_all: type[_TimeScores]

    def __init__(self, *params: Array, **options: Any) -> None:
        super().__init__()
        self._all_steps = self._of_all(*params, **options)
        self.params, self.grads, self.names = self._all_steps.params, self._all_steps.grads, self._all_steps.names

    @property
    def attention_weight(self) -> Array | None:
        """(N, T), of the last forward."""
        weights = self._all_steps.attention_weights
        return None if weights is None else weights[0]

    def forward(self, hs: Array, h: Array, mask: Array | None = None, **options: Any) -> Array:
        """hs (N, T, H_enc), h (N, H_dec), mask (N, T) with True = attend -> c (N, H_enc)."""
        check(hs=(hs, "N T H_enc"), h=(h, "N H_dec"), mask=(mask, "N T: bool"))
        self._saved = True
        return self._all_steps.forward(hs, h[:, None, :], mask, **options)[:, 0, :]

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, H_enc) -> dhs (N, T, H_enc), dh (N, H_dec)."""
        self.saved()
        check(dout=(dout, "N H_enc"))
        dhs, dh = self._all_steps.backward(dout[:, None, :])
        return dhs, dh[:, 0, :]


class TimeGeneralAttention(_TimeScores):
    """Scores ``h_dec @ W @ h_enc`` (Luong's "general"), all decoder steps at once.

    Parameters
    ----------
    W : array (H_dec, H_enc)

    References
    ----------
    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeGeneralAttention(np.ones((3, 7)))
    >>> layer.forward(np.ones((2, 5, 7)), np.ones((2, 4, 3))).shape, len(layer.attention_weights)
    ((2, 4, 7), 4)
    """

    names = ("W",)

    def __init__(self, W: Array) -> None:
        check(W=(W, "H_dec H_enc"))
        super().__init__(W)

    @classmethod
    def create(cls, enc_size: int, dec_size: int, *, initial: Initial | int = 0) -> Self:
        """A layer with initial weights; `initial` is a source of weights, or a seed."""
        return cls(Initial.of(initial).xavier(dec_size, enc_size))

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H_enc), hs_dec (N, T_dec, H_dec), mask (N, T_enc) -> (N, T_dec, H_enc)."""
        self._check(hs_enc, hs_dec, mask)
        q, saved_q = F.affine(hs_dec, self.params[0])
        out, saved = F.attention(q, hs_enc, hs_enc, scale=1.0, mask=None if mask is None else mask[:, None, :])
        self._saved = saved, saved_q
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H_enc) -> dhs_enc (N, T_enc, H_enc), dhs_dec (N, T_dec, H_dec)."""
        saved, saved_q = self.saved()
        dq, dhs_enc = F.attention_backward(saved, dout, shared=True)
        dhs_dec, dW = F.affine_backward(saved_q, dq)
        self.write_grads(dW)
        return dhs_enc, dhs_dec


class GeneralAttention(_OneStep):
    """`TimeGeneralAttention` for one decoder step.

    Parameters
    ----------
    W : array (H_dec, H_enc)

    Examples
    --------
    >>> import numpy as np
    >>> GeneralAttention(np.ones((3, 7))).forward(np.ones((2, 5, 7)), np.ones((2, 3))).shape
    (2, 7)
    """

    _of_all = TimeGeneralAttention


class TimeAdditiveAttention(_TimeScores):
    """Scores ``w @ tanh(h_enc @ W_enc + h_dec @ W_dec + b)`` (Bahdanau), all decoder steps at once.

    Parameters
    ----------
    W_enc : array (H_enc, A)
    W_dec : array (H_dec, A)
    b, w : array (A,)

    References
    ----------
    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", 2015, A.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeAdditiveAttention(np.ones((7, 2)), np.ones((3, 2)), np.zeros(2), np.ones(2))
    >>> layer.forward(np.ones((2, 5, 7)), np.ones((2, 4, 3))).shape
    (2, 4, 7)
    """

    names = ("W_enc", "W_dec", "b", "w")

    def __init__(self, W_enc: Array, W_dec: Array, b: Array, w: Array) -> None:
        check(W_enc=(W_enc, "H_enc A"), W_dec=(W_dec, "H_dec A"), b=(b, "A"), w=(w, "A"))
        super().__init__(W_enc, W_dec, b, w)

    @classmethod
    def create(cls, enc_size: int, dec_size: int, size: int | None = None, *, initial: Initial | int = 0) -> Self:
        """A layer with initial weights; A is `size`, by default that of the decoder."""
        draw, size = Initial.of(initial), size or dec_size
        w = draw.normal(size, scale=size**-0.5)
        return cls(draw.xavier(enc_size, size), draw.xavier(dec_size, size), draw.full(0, size), w)

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H_enc), hs_dec (N, T_dec, H_dec), mask (N, T_enc) -> (N, T_dec, H_enc)."""
        self._check(hs_enc, hs_dec, mask)
        W_enc, W_dec, b, w = self.params
        if mask is not None:  # the gradient of W_enc is a product with all of hs_enc
            xp = self.backend.xp
            hs_enc = xp.where(mask[..., None], hs_enc, self.backend.zero(like=hs_enc))
        k, saved_k = F.affine(hs_enc, W_enc)
        q, saved_q = F.affine(hs_dec, W_dec, b)
        out, saved = F.additive_attention(q, k, hs_enc, w, mask=mask)
        self._saved = saved, saved_k, saved_q
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H_enc) -> dhs_enc (N, T_enc, H_enc), dhs_dec (N, T_dec, H_dec)."""
        saved, saved_k, saved_q = self.saved()
        dq, dk, dhs_enc, dw = F.additive_attention_backward(saved, dout)
        dkeys, dW_enc = F.affine_backward(saved_k, dk)
        dhs_dec, dW_dec, db = F.affine_backward(saved_q, dq)
        self.write_grads(dW_enc, dW_dec, db, dw)
        return dhs_enc + dkeys, dhs_dec


class AdditiveAttention(_OneStep):
    """`TimeAdditiveAttention` for one decoder step.

    Parameters
    ----------
    W_enc : array (H_enc, A)
    W_dec : array (H_dec, A)
    b, w : array (A,)

    Examples
    --------
    >>> import numpy as np
    >>> layer = AdditiveAttention(np.ones((7, 2)), np.ones((3, 2)), np.zeros(2), np.ones(2))
    >>> layer.forward(np.ones((2, 5, 7)), np.ones((2, 3))).shape
    (2, 7)
    """

    _of_all = TimeAdditiveAttention
