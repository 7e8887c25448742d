"""Attention of Luong and of Bahdanau: other scores than the dot product, for one decoder step or for all at once."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.arrays import or_zero
from ..functional.checks import check
from ..functional.integers import sizes
from ._base import Layer
from .initializer import Drawing, Initializer


class TimeScores(Layer):
    """What the forms over all decoder steps share."""

    @property
    def attention_weights(self) -> list[Array] | None:
        """Weights of the last forward: T_dec arrays (N, T_enc)."""
        if self._saved is None:
            return None
        weights = self._saved[0].weights
        weights = self.backend.xp.astype(weights, weights.dtype, copy=True)
        return [weights[:, t, :] for t in range(weights.shape[1])]

    _axes: tuple[str, ...] = ("H_dec H_enc",)
    """Axes of the first parameters, those that encoder and decoder states are multiplied by."""

    def _check(self, **given: tuple[Array | None, str]) -> None:
        """Hold what `forward` was given against the weights, under the names that its caller knows."""
        own = zip(self.names, zip(self.params, self._axes, strict=False), strict=False)
        check(**dict(own), **given)

    def _check_steps(self, hs_enc: Array, hs_dec: Array, mask: Array | None) -> None:
        self._check(hs_enc=(hs_enc, "N T_enc H_enc"), hs_dec=(hs_dec, "N T_dec H_dec"), mask=(mask, "N T_enc: bool"))


class OneStep(Layer):
    """One decoder step, by the form over all of them."""

    def __init__(self, all_steps: TimeScores) -> None:
        super().__init__()
        self._all_steps = all_steps
        self.params, self.grads, self.names = all_steps.params, all_steps.grads, all_steps.names

    @property
    def attention_weight(self) -> Array | None:
        """Weights (N, T) of the last forward."""
        weights = self._all_steps.attention_weights
        return None if weights is None else weights[0]

    def forward(self, hs: Array, h: Array, mask: Array | None = None) -> Array:
        """hs (N, T, H_enc), h (N, H_dec), mask (N, T) with True = attend -> c (N, H_enc)."""
        self._all_steps._check(hs=(hs, "N T H_enc"), h=(h, "N H_dec"), mask=(mask, "N T: bool"))
        self._saved = True
        return self._all_steps.forward(hs, h[:, None, :], mask)[:, 0, :]

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, H_enc) -> dhs (N, T, H_enc), dh (N, H_dec)."""
        self.saved()
        check(dout=(dout, "N H_enc"))
        dhs, dh = self._all_steps.backward(dout[:, None, :])
        return dhs, dh[:, 0, :]


class TimeGeneralAttention(TimeScores):
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
    def create(cls, enc_size: int, dec_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for H_enc and H_dec; `drawing` is that of `Initializer`."""
        H_enc, H_dec = sizes(enc_size=enc_size, dec_size=dec_size)
        return cls(Initializer.of(**drawing).matrix(H_dec, H_enc))

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H_enc), hs_dec (N, T_dec, H_dec), mask (N, T_enc) -> (N, T_dec, H_enc)."""
        self._check_steps(hs_enc, hs_dec, mask)
        q, saved_q = F.affine(hs_dec, self.params[0])
        out, saved = F.attention(q, hs_enc, scale=1.0, mask=None if mask is None else mask[:, None, :])
        self._saved = saved, saved_q
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H_enc) -> dhs_enc (N, T_enc, H_enc), dhs_dec (N, T_dec, H_dec)."""
        saved, saved_q = self.saved()
        dq, dhs_enc = F.attention_backward(saved, dout)
        dhs_dec, _ = F.affine_backward(saved_q, dq, out=self.grads)
        return dhs_enc, dhs_dec


class GeneralAttention(OneStep):
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

    def __init__(self, W: Array) -> None:
        super().__init__(TimeGeneralAttention(W))

    @classmethod
    def create(cls, enc_size: int, dec_size: int, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, as `TimeGeneralAttention` has them."""
        return cls(*TimeGeneralAttention.create(enc_size, dec_size, **drawing).params)


class TimeAdditiveAttention(TimeScores):
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
    _axes = ("H_enc A", "H_dec A")

    def __init__(self, W_enc: Array, W_dec: Array, b: Array, w: Array) -> None:
        check(W_enc=(W_enc, "H_enc A"), W_dec=(W_dec, "H_dec A"), b=(b, "A"), w=(w, "A"))
        super().__init__(W_enc, W_dec, b, w)

    @classmethod
    def create(
        cls, enc_size: int, dec_size: int, attention_size: int | None = None, **drawing: Unpack[Drawing]
    ) -> Self:
        """A layer with initial weights; A is `attention_size`, by default H_dec; `drawing` is that of `Initializer`."""
        attention_size = dec_size if attention_size is None else attention_size
        H_enc, H_dec, A = sizes(enc_size=enc_size, dec_size=dec_size, attention_size=attention_size)
        draw = Initializer.of(**drawing)
        w = draw.normal(A, usual=A**-0.5)
        return cls(draw.matrix(H_enc, A), draw.matrix(H_dec, A), draw.full(0, A), w)

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H_enc), hs_dec (N, T_dec, H_dec), mask (N, T_enc) -> (N, T_dec, H_enc)."""
        self._check_steps(hs_enc, hs_dec, mask)
        W_enc, W_dec, b, w = self.params
        if mask is not None:  # the gradient of W_enc is a product with all of hs_enc
            hs_enc = or_zero(self.backend, mask[..., None], hs_enc)
        k, saved_k = F.affine(hs_enc, W_enc)
        q, saved_q = F.affine(hs_dec, W_dec, b)
        out, saved = F.additive_attention(q, k, hs_enc, w, mask=mask)
        self._saved = saved, saved_k, saved_q
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H_enc) -> dhs_enc (N, T_enc, H_enc), dhs_dec (N, T_dec, H_dec)."""
        saved, saved_k, saved_q = self.saved()
        dW_enc, dW_dec, db, dw = self.grads
        dq, dk, dhs_enc, dw[...] = F.additive_attention_backward(saved, dout)
        dkeys, _ = F.affine_backward(saved_k, dk, out=(dW_enc,))
        dhs_dec, *_ = F.affine_backward(saved_q, dq, out=(dW_dec, db))
        return dhs_enc + dkeys, dhs_dec


class AdditiveAttention(OneStep):
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

    def __init__(self, W_enc: Array, W_dec: Array, b: Array, w: Array) -> None:
        super().__init__(TimeAdditiveAttention(W_enc, W_dec, b, w))

    @classmethod
    def create(
        cls, enc_size: int, dec_size: int, attention_size: int | None = None, **drawing: Unpack[Drawing]
    ) -> Self:
        """A layer with initial weights, as `TimeAdditiveAttention` has them."""
        return cls(*TimeAdditiveAttention.create(enc_size, dec_size, attention_size, **drawing).params)
