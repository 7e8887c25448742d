"""The kernels of ``backends/attnbackends/kernels`` a second time, in NumPy: arguments as they are launched."""

from typing import Any

import numpy as np

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


def adam_step(param: Array, grad: Array, m: Array, v: Array, lr: Any, beta1: Any, beta2: Any, size: int) -> None:
    if size != param.size:
        raise ValueError(f"{param.size} values, not {size}")
    m += (1 - beta1) * (grad - m)
    v += (1 - beta2) * (grad * grad - v)
    param -= lr * (m / (np.sqrt(v) + param.dtype.type(1e-7)))
