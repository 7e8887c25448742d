"""The attention layers of the book's chapter 8, for one decoder step or for all at once."""

from collections.abc import Sequence

from attnbackends import Array

from .. import functional as F
from ..functional.checks import check
from ._base import Layer


class WeightSum(Layer):
    """Context vector: encoder states summed with attention weights.

    References
    ----------
    Deep Learning from Scratch 2, section 8.1.2.
    """

    def forward(self, hs: Array, a: Array) -> Array:
        """hs (N, T, H), a (N, T) -> c (N, H)."""
        check(hs=(hs, "N T H"), a=(a, "N T"))
        c, self._saved = F.weighted_sum(hs, a)
        self._dout = None
        return c

    def backward(self, dc: Array) -> tuple[Array, Array]:
        """dc (N, H) -> dhs (N, T, H), da (N, T)."""
        saved = self.saved()
        check(hs=(saved.values, "N T H"), dc=(dc, "N H"))
        self._note(dc)
        return F.weighted_sum_backward(saved, dc)


class AttentionWeight(Layer):
    """Attention weights: softmax over time of the dot products of encoder states and a decoder state.

    References
    ----------
    Deep Learning from Scratch 2, section 8.1.3.
    """

    def forward(self, hs: Array, h: Array, mask: Array | None = None) -> Array:
        """hs (N, T, H), h (N, H), mask (N, T) with True = attend -> a (N, T)."""
        check(hs=(hs, "N T H"), h=(h, "N H"), mask=(mask, "N T: bool"))
        a, self._saved = F.attention_weights(h[:, None, :], hs, scale=1.0, mask=_over_queries(mask))
        self._dout = None
        return a[:, 0, :]

    def backward(self, da: Array) -> tuple[Array, Array]:
        """da (N, T) -> dhs (N, T, H), dh (N, H)."""
        saved = self.saved()
        check(hs=(saved.attention.problem.k, "N T H"), da=(da, "N T"))
        self._note(da)
        dh, dhs = F.attention_weights_backward(saved, da[:, None, :])
        return dhs, dh[:, 0, :]


class Attention(Layer):
    """Attention of one decoder step over the encoder's states.

    Attributes
    ----------
    attention_weight : array (N, T) or None
        Weights of the last forward.

    References
    ----------
    Deep Learning from Scratch 2, section 8.1.4.
    """

    def __init__(self) -> None:
        super().__init__()
        self._all_steps = TimeAttention()

    @property
    def attention_weight(self) -> Array | None:
        weights = self._all_steps.attention_weights
        return None if weights is None else weights[0]

    def forward(self, hs: Array, h: Array, mask: Array | None = None) -> Array:
        """hs (N, T, H), h (N, H), mask (N, T) with True = attend -> c (N, H)."""
        check(hs=(hs, "N T H"), h=(h, "N H"), mask=(mask, "N T: bool"))
        self._saved = hs
        return self._all_steps.forward(hs, h[:, None, :], mask)[:, 0, :]

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, H) -> dhs (N, T, H), dh (N, H)."""
        check(hs=(self.saved(), "N T H"), dout=(dout, "N H"))
        dhs, dh = self._all_steps.backward(dout[:, None, :])
        return dhs, dh[:, 0, :]


class TimeAttention(Layer):
    """Attention of all decoder steps over the encoder's states, at once.

    Attributes
    ----------
    attention_weights : sequence of T_dec arrays (N, T_enc), or None
        Weights of the last forward; ``np.array(layer.attention_weights)`` is (T_dec, N, T_enc).

    References
    ----------
    Deep Learning from Scratch 2, section 8.1.5.
    """

    @property
    def attention_weights(self) -> Sequence[Array] | None:
        if self._saved is None:
            return None
        weights = self._saved.weights
        return [weights[:, t, :] for t in range(weights.shape[1])]

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """hs_enc (N, T_enc, H), hs_dec (N, T_dec, H), mask (N, T_enc) with True = attend -> (N, T_dec, H)."""
        check(hs_enc=(hs_enc, "N T_enc H"), hs_dec=(hs_dec, "N T_dec H"), mask=(mask, "N T_enc: bool"))
        out, self._saved = F.attention(hs_dec, hs_enc, scale=1.0, mask=_over_queries(mask))
        self._dout = None
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """dout (N, T_dec, H) -> dhs_enc (N, T_enc, H), dhs_dec (N, T_dec, H)."""
        dhs_dec, dhs_enc = F.attention_backward(self.saved(), dout)
        self._note(dout)
        return dhs_enc, dhs_dec


def _over_queries(mask: Array | None) -> Array | None:
    """(N, T) -> (N, 1, T): the same keys for every query."""
    return None if mask is None else mask[:, None, :]
