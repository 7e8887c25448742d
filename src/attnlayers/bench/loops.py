"""Attention in the manner of the book's chapter 8, as plainly as it can be said: what speed is measured against.

One layer object for each decoder step, which broadcasts or repeats its arrays and multiplies (N, T, H) element by
element, in the dtype of its arguments. The tests compare with it, too.
"""

from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


class BookSoftmax:
    """Softmax over the second axis of (N, T); what `mask` leaves out has weight 0."""

    def forward(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        if mask is not None:
            x = np.where(mask, x, -np.inf).astype(x.dtype)
        largest = x.max(axis=1, keepdims=True)
        largest = np.where(np.isinf(largest), 0, largest)
        x = np.exp(x - largest)
        total = x.sum(axis=1, keepdims=True)
        self.out: np.ndarray = x / np.where(total == 0, 1, total)
        return self.out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        dx: np.ndarray = self.out * dout
        dx -= self.out * dx.sum(axis=1, keepdims=True)
        return dx


class BookWeightSum:
    """hs (N, T, H), a (N, T) -> c (N, H)."""

    def forward(self, hs: np.ndarray, a: np.ndarray) -> np.ndarray:
        column = a[:, :, None]
        self.saved = hs, column
        c: np.ndarray = (hs * column).sum(axis=1)
        return c

    def backward(self, dc: np.ndarray) -> Arrays:
        hs, column = self.saved
        N, T, H = hs.shape
        dproduct = dc.reshape(N, 1, H).repeat(T, axis=1)
        return dproduct * column, (dproduct * hs).sum(axis=2)


class BookAttentionWeight:
    """hs (N, T, H), h (N, H) -> a (N, T)."""

    def __init__(self) -> None:
        self.softmax = BookSoftmax()

    def forward(self, hs: np.ndarray, h: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        row = h[:, None, :]
        self.saved = hs, row
        return self.softmax.forward((hs * row).sum(axis=2), mask)

    def backward(self, da: np.ndarray) -> Arrays:
        hs, repeated = self.saved
        N, T, H = hs.shape
        dproduct = self.softmax.backward(da).reshape(N, T, 1).repeat(H, axis=2)
        return dproduct * repeated, (dproduct * hs).sum(axis=1)


class BookAttention:
    """hs (N, T, H), h (N, H) -> c (N, H)."""

    def __init__(self) -> None:
        self.weigh, self.sum = BookAttentionWeight(), BookWeightSum()
        self.attention_weight: np.ndarray | None = None

    def forward(self, hs: np.ndarray, h: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        self.attention_weight = self.weigh.forward(hs, h, mask)
        return self.sum.forward(hs, self.attention_weight)

    def backward(self, dc: np.ndarray) -> Arrays:
        dhs_of_sum, da = self.sum.backward(dc)
        dhs_of_weights, dh = self.weigh.backward(da)
        return dhs_of_sum + dhs_of_weights, dh


class BookTimeAttention:
    """hs_enc (N, T_enc, H), hs_dec (N, T_dec, H) -> (N, T_dec, H), one decoder step after the other."""

    def __init__(self) -> None:
        self.steps: list[BookAttention] = []
        self.attention_weights: list[np.ndarray | None] = []

    def forward(self, hs_enc: np.ndarray, hs_dec: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        out = np.empty_like(hs_dec)
        self.steps, self.attention_weights = [], []
        for t in range(hs_dec.shape[1]):
            step = BookAttention()
            out[:, t] = step.forward(hs_enc, hs_dec[:, t], mask)
            self.steps.append(step)
            self.attention_weights.append(step.attention_weight)
        return out

    def backward(self, dout: np.ndarray) -> Arrays:
        dhs_enc: Any = 0
        dhs_dec = np.empty_like(dout)
        for t, step in enumerate(self.steps):
            dhs, dhs_dec[:, t] = step.backward(dout[:, t])
            dhs_enc += dhs
        return dhs_enc, dhs_dec
