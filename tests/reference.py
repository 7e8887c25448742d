"""The same maths a second time, as plainly as it can be said: loops over rows, steps and entries, in NumPy.

The functions go from number to number, in the dtype of their arguments: in float64 they are what results are compared
with, in float32 they tell what error is fair. The book's attention layers stand in `attnlayers.bench.loops`.
"""

from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, mask: np.ndarray, dout: np.ndarray) -> Arrays:
    """out, weights, dq, dk, dv for one pair of (T_q, D) and (T_k, D): row by row, key by key."""
    out, weights = np.zeros((len(q), v.shape[1]), q.dtype), np.zeros((len(q), len(k)), q.dtype)
    dq, dk, dv = (np.zeros_like(x) for x in (q, k, v))
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if mask[i, j]]
        scores = {j: scale * sum(q[i, d] * k[j, d] for d in range(q.shape[1])) for j in seen}
        total = sum(np.exp(scores[j] - max(scores.values())) for j in seen)
        for j in seen:
            weights[i, j] = np.exp(scores[j] - max(scores.values())) / total
            out[i] += weights[i, j] * v[j]
        dweights = {j: sum(dout[i, d] * v[j, d] for d in range(v.shape[1])) for j in seen}
        mean = sum(weights[i, j] * dweights[j] for j in seen)
        for j in seen:
            dscore = weights[i, j] * (dweights[j] - mean)
            dq[i] += scale * dscore * k[j]
            dk[j] += scale * dscore * q[i]
            dv[j] += weights[i, j] * dout[i]
    return out, weights, dq, dk, dv


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(x: np.ndarray, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[Any, ...]:
    """hs, h, c and what `lstm_backward` needs for x (N, T, D), step by step."""
    steps, hs = [], []
    for t in range(x.shape[1]):
        f, g, i, o = np.split(x[:, t] @ Wx + h @ Wh + b, 4, axis=1)
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        next_c = f * c + g * i
        next_h = o * np.tanh(next_c)
        steps.append((x[:, t], h, c, f, g, i, o, next_c))
        h, c = next_h, next_c
        hs.append(h)
    return np.stack(hs, axis=1), h, c, steps


def lstm_backward(
    steps: list[Arrays], Wx: np.ndarray, Wh: np.ndarray, dhs: np.ndarray, dh: np.ndarray, dc: np.ndarray
) -> Arrays:
    """dx, dWx, dWh, db, dh, dc of `lstm`, last step first."""
    dx, dWx, dWh, db = [], np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(len(Wh) * 4, dtype=Wh.dtype)
    for t, (x, h, c, f, g, i, o, next_c) in reversed(list(enumerate(steps))):
        dh = dh + dhs[:, t]
        dc = dc + dh * o * (1 - np.tanh(next_c) ** 2)
        df, dg, di, do = dc * c, dc * i, dc * g, dh * np.tanh(next_c)
        gates = [df * f * (1 - f), dg * (1 - g**2), di * i * (1 - i), do * o * (1 - o)]
        da = np.concatenate(gates, axis=1)
        dWx, dWh, db = dWx + x.T @ da, dWh + h.T @ da, db + da.sum(axis=0)
        dx.append(da @ Wx.T)
        dh, dc = da @ Wh.T, dc * f
    return np.stack(dx[::-1], axis=1), dWx, dWh, db, dh, dc


def cross_entropy(logits: np.ndarray, labels: np.ndarray, ignore: int = -1) -> tuple[float, np.ndarray]:
    """The loss and its gradient for logits (M, V), row by row."""
    loss, dlogits = 0.0, np.zeros(logits.shape)
    counted = [m for m in range(len(labels)) if labels[m] != ignore]
    for m in counted:
        p = np.exp(logits[m] - logits[m].max())
        p = p / p.sum()
        loss -= float(np.log(p[labels[m]])) / len(counted)
        dlogits[m] = p / len(counted)
        dlogits[m, labels[m]] -= 1 / len(counted)
    return loss, dlogits
