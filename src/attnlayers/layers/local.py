"""Local attention: each decoder step looks at a few encoder states around a place that it chooses."""

from typing import Self, Unpack

from attnbackends import Array

from .. import functional as F
from ..functional.arrays import sigmoid
from ..functional.checks import check
from ..functional.dtypes import widen
from ..functional.integers import integer, sizes
from .initializer import Drawing, Initializer
from .scores import OneStep, TimeScores


class TimeLocalAttention(TimeScores):
    """Luong's local attention with predicted centres, all decoder steps at once.

    The centre of a step is ``(length - 1) * sigmoid(tanh(h_dec @ W_p) @ v_p)``, where length counts the encoder states
    that the mask lets through; it must let through the first ones. Scores are ``h_dec @ W @ h_enc``.

    Parameters
    ----------
    W : array (H_dec, H_enc)
    W_p : array (H_dec, P)
    v_p : array (P, 1)
    width : int
        States on either side of the centre that are looked at.

    Attributes
    ----------
    centres : array (N, T_dec) or None
        Centres of the last forward.

    References
    ----------
    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015, section 3.2,
    "local-p". There the centre is length * sigmoid(…) and may stand behind the last state.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeLocalAttention(np.ones((3, 7)), np.zeros((3, 2)), np.zeros((2, 1)), width=1)
    >>> layer.forward(np.ones((2, 5, 7)), np.ones((2, 4, 3))).shape, layer.centres[0].tolist()
    ((2, 4, 7), [2.0, 2.0, 2.0, 2.0])
    """

    names = ("W", "W_p", "v_p")

    def __init__(self, W: Array, W_p: Array, v_p: Array, width: int = 10) -> None:
        check(W=(W, "H_dec H_enc"), W_p=(W_p, "H_dec P"), v_p=(v_p, "P 1"))
        super().__init__(W, W_p, v_p)
        self.width = integer("width", width, least=1)
        self.centres: Array | None = None

    @classmethod
    def create(cls, enc_size: int, dec_size: int, *, width: int = 10, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, for H_enc and H_dec, P being H_dec; `drawing` is that of `Initializer`."""
        draw, (H_enc, H_dec) = Initializer.of(**drawing), sizes(enc_size=enc_size, dec_size=dec_size)
        return cls(draw.matrix(H_dec, H_enc), draw.matrix(H_dec, H_dec), draw.matrix(H_dec, 1), width)

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H_enc), hs_dec (N, T_dec, H_dec), mask (N, T_enc) -> (N, T_dec, H_enc)."""
        self._check_steps(hs_enc, hs_dec, mask)
        W, W_p, v_p = self.params
        backend, xp, dtype = self.backend, self.backend.xp, hs_dec.dtype
        hidden, saved_p = F.affine(hs_dec, W_p)
        hidden = xp.tanh(hidden)
        where, saved_v = F.affine(hidden, v_p)  # (N, T_dec, 1)
        share = sigmoid(xp, widen(backend, where[..., 0]))
        last: Array | float = float(hs_enc.shape[1] - 1)
        if mask is not None:
            last = xp.sum(xp.astype(mask, share.dtype), axis=1, keepdims=True) - 1  # (N, 1)
        self.centres = xp.astype(last * share, dtype, copy=False)
        q, saved_q = F.affine(hs_dec, W)
        out, saved = F.local_attention(q, hs_enc, hs_enc, self.centres, width=self.width, mask=mask)
        self._saved = saved, saved_q, saved_p, saved_v, hidden, last * share * (1 - share)
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H_enc) -> dhs_enc (N, T_enc, H_enc), dhs_dec (N, T_dec, H_dec)."""
        saved, saved_q, saved_p, saved_v, hidden, slope = self.saved()
        backend, xp = self.backend, self.backend.xp
        dq, dk, dv, dcentres = F.local_attention_backward(saved, dout)
        dwhere = xp.astype(widen(backend, dcentres) * slope, dout.dtype, copy=False)
        dW, dW_p, dv_p = self.grads
        dhidden, _ = F.affine_backward(saved_v, dwhere[..., None], out=(dv_p,))
        wide = widen(backend, hidden)
        dsum = xp.astype(widen(backend, dhidden) * (1 - wide * wide), dout.dtype, copy=False)
        dhs_dec, _ = F.affine_backward(saved_p, dsum, out=(dW_p,))
        dh, _ = F.affine_backward(saved_q, dq, out=(dW,))
        return dk + dv, dhs_dec + dh


class LocalAttention(OneStep):
    """`TimeLocalAttention` for one decoder step.

    Parameters
    ----------
    W, W_p, v_p, width
        As in `TimeLocalAttention`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LocalAttention(np.ones((3, 7)), np.zeros((3, 2)), np.zeros((2, 1)), width=1)
    >>> layer.forward(np.ones((2, 5, 7)), np.ones((2, 3))).shape
    (2, 7)
    """

    def __init__(self, W: Array, W_p: Array, v_p: Array, width: int = 10) -> None:
        super().__init__(TimeLocalAttention(W, W_p, v_p, width))

    @classmethod
    def create(cls, enc_size: int, dec_size: int, *, width: int = 10, **drawing: Unpack[Drawing]) -> Self:
        """A layer with initial weights, as `TimeLocalAttention` has them."""
        W, W_p, v_p = TimeLocalAttention.create(enc_size, dec_size, **drawing).params
        return cls(W, W_p, v_p, width)
