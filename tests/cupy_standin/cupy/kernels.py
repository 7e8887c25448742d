"""The kernels of ``backends/attnbackends/kernels`` a second time, in NumPy: arguments as they are launched."""

from typing import Any

import numpy as np

from attnbackends import _random

Array = np.ndarray[Any, Any]


def _sigmoid(a: Array) -> Array:
    return np.tanh(a / 2) / 2 + a.dtype.type(0.5)


def _gates(a: Array, H: int) -> list[Array]:
    return [a[:, gate * H : (gate + 1) * H] for gate in range(4)]


def lstm_cell(
    gates: Array, from_h: Array, b: Array, c: Array, new_c: Array, tanh_c: Array, new_h: Array, *_: Any
) -> None:
    H = c.shape[-1]
    f, g, i, o = _gates(gates + from_h + b, H)
    gates[...] = np.concatenate((_sigmoid(f), np.tanh(g), _sigmoid(i), _sigmoid(o)), axis=1)
    f, g, i, o = _gates(gates, H)
    new_c[...] = f * c + g * i
    tanh_c[...] = np.tanh(new_c)
    new_h[...] = o * tanh_c


def lstm_cell_backward(
    gates: Array, c: Array, tanh_c: Array, dhs: Array, dh: Array, dc: Array, da: Array, N: int, H: int, stride: int
) -> None:
    if dhs.strides != (stride * dhs.itemsize, dhs.itemsize) or dhs.shape != (N, H):
        raise ValueError(f"dhs {dhs.shape} with strides {dhs.strides} is not {N} rows of {H}, {stride} apart")
    f, g, i, o = _gates(gates, H)
    dh += dhs
    dc += dh * o * (1 - tanh_c * tanh_c)
    parts = (dc * c * f * (1 - f), dc * i * (1 - g * g), dc * g * i * (1 - i), dh * tanh_c * o * (1 - o))
    da[...] = np.concatenate(parts, axis=1)
    dc *= f


def lstm_all_steps(
    gates: Array, Wh: Array, b: Array, first_h: Any, first_c: Any, h: Array, c: Array, tanh_c: Array, *_: Any
) -> None:
    h[0], c[0] = first_h, first_c  # a null pointer is 0
    for t in range(len(gates)):
        lstm_cell(gates[t], h[t] @ Wh, b, c[t], c[t + 1], tanh_c[t], h[t + 1])


def softmax_rows(scores: Array, T: int) -> None:
    if scores.shape[-1] != T:
        raise ValueError(f"rows of {scores.shape[-1]}, not {T}")
    top = scores.max(axis=-1, keepdims=True)
    scores -= np.where(top == -np.inf, 0, top)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, 1, total)


def adam_step(param: Array, grad: Array, m: Array, v: Array, lr: Any, share1: Any, share2: Any, size: int) -> None:
    if size != param.size:
        raise ValueError(f"{param.size} values, not {size}")
    m += share1 * (grad - m)
    v += share2 * (grad * grad - v)
    param -= lr * (m / (np.sqrt(v) + param.dtype.type(1e-7)))


def _seen(B: int, mask: Any, starts: Any, lengths: Any, *numbers: Any) -> Array:
    """Which keys each row sees, (B, R, T_k)."""
    T_q, R, T_k, start, left, right, by_entry, by_row, by_key, period = map(int, numbers)
    position = np.broadcast_to(start if isinstance(starts, np.uintp) else starts, (B,))[:, None, None]
    position = position + (np.arange(R) % T_q)[None, :, None]
    keys = np.arange(T_k)
    seen = (keys >= position - left) & (keys <= position + right)
    if not isinstance(lengths, np.uintp):
        seen &= keys < lengths[:, None, None]
    if not isinstance(mask, np.uintp):
        view = np.lib.stride_tricks.as_strided(mask, (B, period, T_k), (by_entry, by_row, by_key))
        seen &= view[:, np.arange(R) % period]
    return seen


def _scores(q: Array, k: Array, scale: Any, seen: Array) -> Array:
    return np.where(seen, scale * (q @ np.swapaxes(k, 1, 2)), -np.inf)


def _cleared(x: Array, keep: Array) -> Array:
    """0 in the place of rows that do not count, which may hold NaN."""
    return np.where(keep[..., None], x, 0)


def attention_small(q: Array, k: Array, v: Array, out: Array, lse: Array, *rest: Any) -> None:
    *sight, D, D_v, scale = rest
    seen = _seen(len(q), *sight)
    if (*q.shape, *v.shape) != (len(q), seen.shape[1], D, len(q), seen.shape[2], D_v):
        raise ValueError(f"{q.shape} and {v.shape} are not rows of {D} and {D_v}")
    scores = _scores(q, k, scale, seen)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    lse[...] = np.where(total == 0, 1e30, top + np.log(total))
    out[...] = weights / np.where(total == 0, 1, total) @ _cleared(v, seen.any(axis=1))


def _backward(q: Array, k: Array, v: Array, delta: Any, lse: Array, *rest: Any) -> None:
    dout, dlse, dq, dk, dv, *sight, _, _, scale, by_entry, by_row = rest
    if dout.strides != (by_entry * dout.itemsize, by_row * dout.itemsize, dout.itemsize):
        raise ValueError(f"dout has strides {dout.strides}, not {by_entry} and {by_row} values")
    seen = _seen(len(q), *sight)
    rows, keys = seen.any(axis=2), seen.any(axis=1)
    own_q, own_dout, own_k = _cleared(q, rows), _cleared(dout, rows), _cleared(k, keys)
    weights = np.exp(_scores(own_q, own_k, scale, seen) - lse)
    dweights = own_dout @ np.swapaxes(_cleared(v, keys), 1, 2)
    if delta is None:
        delta = np.sum(weights * dweights, axis=-1, keepdims=True)
    delta = delta - (0 if isinstance(dlse, np.uintp) else dlse)
    dscores = np.where(seen, scale * (weights * (dweights - delta)), 0)
    dq[...] = dscores @ own_k
    dk[...] = np.swapaxes(dscores, 1, 2) @ own_q
    into_values = np.swapaxes(weights, 1, 2) @ own_dout
    if isinstance(dv, np.uintp):
        dk += into_values
    else:
        dv[...] = into_values


def attention_small_backward(q: Array, k: Array, v: Array, lse: Array, *rest: Any) -> None:
    _backward(q, k, v, None, lse, *rest)


attention_tiled = attention_small


def attention_tiled_backward(q: Array, k: Array, v: Array, out: Array, lse: Array, dout: Array, *rest: Any) -> None:
    _backward(q, k, v, np.sum(dout * out, axis=-1, keepdims=True), lse, dout, *rest)


def uniform(
    out: Array, key0: int, key1: int, b: int, r: int, K: int, entry: int, row: int, t: int, R: int, panels: int, w: int
) -> None:
    place = slice(entry, entry + b), slice(row, row + r), slice(t, t + K)
    out[...] = _random.uniform(int(key0) % 2**64 + int(key1) * 2**64, place, int(R), int(panels * w))
