"""Attention: softmax of scaled dot products, used to weight a sum. Every attention layer calls this core.

Leading axes are flattened into one, B, and worked through in pieces that the backend lays out: on a CPU they
stay in a core's cache and run side by side, on a device there is one.
"""

from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal, overload

import numpy as np

from attnbackends import Array, Backend

from ._check import check
from ._dtypes import wide, widen


@dataclass(frozen=True)
class SavedAttention:
    """What the backward of `attention` and `attention_weights` needs; leading axes are flat."""

    backend: Backend
    lead: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]  # of q, k and v as they came
    scale: float
    mask: Array | None  # (B or 1, T_q or 1, T_k)
    q: Array  # (B, T_q, D)
    k: Array  # (B, T_k, D)
    v: Array | None  # (B, T_k, D_v)
    flat_weights: Array  # (B, T_q, T_k)

    @property
    def weights(self) -> Array:
        """Attention weights (..., T_q, T_k); float32 where the arguments were in half precision."""
        return self.backend.xp.reshape(self.flat_weights, (*self.lead, *self.flat_weights.shape[1:]))

    def pieces(self) -> list[slice]:
        """The flat leading axis in pieces."""
        count, T_q, T_k = self.flat_weights.shape
        width = self.q.shape[-1] + (0 if self.v is None else self.v.shape[-1])
        itemsize = self.backend.xp.finfo(self.flat_weights.dtype).bits // 8
        return self.backend.chunks(count, itemsize * (T_q * T_k + (T_q + T_k) * width))

    def operands(self, b: slice) -> tuple[Array, Array, Array, Array | None]:
        """q (scaled), k, v and mask of one piece, in the dtype to compute in.

        A query that attends to nothing, and a key that no query attends to, come as 0: whatever they hold
        would meet a weight of 0 in the products, and 0 * NaN is NaN.
        """
        xp = self.backend.xp
        q, k = widen(self.backend, self.q[b, ...]), widen(self.backend, self.k[b, ...])
        v = k if self.v is None or self.v is self.k else widen(self.backend, self.v[b, ...])
        mask = self.mask
        if mask is not None:
            mask = mask if mask.shape[0] == 1 else mask[b, ...]
            shared = v is k
            zero = xp.zeros_like(q[:1, :1, :1])
            attended = xp.matrix_transpose(xp.any(mask, axis=-2, keepdims=True))  # (b, T_k, 1)
            q = xp.where(xp.any(mask, axis=-1, keepdims=True), q, zero)
            k = xp.where(attended, k, zero)
            v = k if shared else xp.where(attended, v, zero)
        return (q if self.scale == 1 else q * self.scale), k, v, mask


def attention(
    q: Array, k: Array, v: Array, *, scale: float | None = None, mask: Array | None = None
) -> tuple[Array, SavedAttention]:
    """Scaled dot product attention, ``softmax(scale * q @ k.T) @ v``.

    Parameters
    ----------
    q : array (..., T_q, D)
        Queries. Leading axes of q, k and v broadcast.
    k : array (..., T_k, D)
        Keys.
    v : array (..., T_k, D_v)
        Values.
    scale : float, optional
        Default ``1 / sqrt(D)``. The book's layers use 1.
    mask : boolean array, optional
        Broadcasts to (..., T_q, T_k); True = attend. A query that attends to nothing gets 0, and a key that no
        query attends to is not looked at, whatever it holds.

    Returns
    -------
    out : array (..., T_q, D_v)
        In the dtype of the arguments; half precision is computed in float32.
    saved : SavedAttention
        For `attention_backward`; ``saved.weights`` are the attention weights.

    Raises
    ------
    TypeError, ValueError, BackendError
        For arguments that do not fit each other.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.2.1.
    Deep Learning from Scratch 2, section 8.1 (there with ``scale=1``).

    Examples
    --------
    >>> import numpy as np
    >>> q = k = v = np.eye(2, dtype=np.float32)
    >>> out, saved = attention(q, k, v, scale=100.0)
    >>> out.round(3)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), v=(v, "* T_k D_v"), mask=(mask, "*: bool"))
    saved = _prepare(backend, q, k, v, scale, mask)
    out = backend.empty((*saved.q.shape[:-1], v.shape[-1]), like=q)

    def piece(b: slice) -> None:
        q_b, k_b, v_b, mask_b = saved.operands(b)
        weights = _weigh(saved, b, q_b, k_b, mask_b)
        _products(backend, out[b, ...], (weights, v_b))  # (b, T_q, T_k) x (b, T_k, D_v) -> (b, T_q, D_v)

    backend.map(piece, saved.pieces())
    return backend.xp.reshape(out, (*saved.lead, *out.shape[1:])), saved


@overload
def attention_backward(
    saved: SavedAttention, dout: Array, *, shared: Literal[False] = ...
) -> tuple[Array, Array, Array]: ...
@overload
def attention_backward(saved: SavedAttention, dout: Array, *, shared: Literal[True]) -> tuple[Array, Array]: ...
def attention_backward(saved: SavedAttention, dout: Array, *, shared: bool = False) -> tuple[Array, ...]:
    """Gradients of `attention`.

    Parameters
    ----------
    saved : SavedAttention
    dout : array (..., T_q, D_v)
    shared : bool
        Keys and values were one array: its gradient, the sum of both, comes back once.

    Returns
    -------
    dq, dk, dv : arrays of the shapes of q, k and v
        Or ``dq, dk`` with `shared`.
    """
    backend, xp = saved.backend, saved.backend.xp
    if saved.v is None:
        raise ValueError("`saved` comes from attention_weights: its gradients are attention_weights_backward's")
    if shared and saved.v is not saved.k:
        raise ValueError("`shared` needs keys and values that were one and the same array in the forward pass")
    T_q, D_v = saved.q.shape[1], saved.v.shape[-1]
    _check_gradient(saved, "dout", dout, (*saved.lead, T_q, D_v))
    dout = xp.reshape(dout, (prod(saved.lead), T_q, D_v))
    dq, dk = backend.empty(saved.q.shape, like=saved.q), backend.empty(saved.k.shape, like=saved.k)
    dv = None if shared else backend.empty(saved.v.shape, like=saved.v)

    def piece(b: slice) -> None:
        q_b, k_b, v_b, _ = saved.operands(b)
        weights, dout_b = saved.flat_weights[b, ...], widen(backend, dout[b, ...])
        dweights = backend.matmul(dout_b, _T(backend, v_b))  # (b, T_q, D_v) x (b, D_v, T_k) -> (b, T_q, T_k)
        dscores = backend.softmax_backward(weights, dweights)
        into_values = (_T(backend, weights), dout_b)  # (b, T_k, T_q) x (b, T_q, D_v) -> (b, T_k, D_v)
        if dv is not None:
            _products(backend, dv[b, ...], into_values)
        _through_scores(saved, b, q_b, k_b, dscores, dq, dk, into_values if shared else None)

    backend.map(piece, saved.pieces())
    gradients = (dq, dk) if dv is None else (dq, dk, dv)
    return tuple(_unflatten(saved, i, gradient) for i, gradient in enumerate(gradients))


def attention_weights(
    q: Array, k: Array, *, scale: float | None = None, mask: Array | None = None
) -> tuple[Array, SavedAttention]:
    """The weights of `attention` alone, ``softmax(scale * q @ k.T)``.

    Parameters
    ----------
    q : array (..., T_q, D)
    k : array (..., T_k, D)
    scale, mask
        As in `attention`.

    Returns
    -------
    weights : array (..., T_q, T_k)
        `saved` shares it: not to be written to before `attention_weights_backward`.
    saved : SavedAttention
    """
    backend = check(q=(q, "* T_q D"), k=(k, "* T_k D"), mask=(mask, "*: bool"))
    saved = _prepare(backend, q, k, None, scale, mask)

    def piece(b: slice) -> None:
        q_b, k_b, _, mask_b = saved.operands(b)
        _weigh(saved, b, q_b, k_b, mask_b)

    backend.map(piece, saved.pieces())
    return backend.xp.astype(saved.weights, q.dtype, copy=False), saved


def attention_weights_backward(saved: SavedAttention, dweights: Array) -> tuple[Array, Array]:
    """Gradients of `attention_weights`: dweights (..., T_q, T_k) -> dq, dk."""
    backend, xp = saved.backend, saved.backend.xp
    _check_gradient(saved, "dweights", dweights, tuple(saved.weights.shape))
    dweights = xp.reshape(dweights, saved.flat_weights.shape)
    dq, dk = backend.empty(saved.q.shape, like=saved.q), backend.empty(saved.k.shape, like=saved.k)

    def piece(b: slice) -> None:
        q_b, k_b, _, _ = saved.operands(b)
        own = xp.astype(dweights[b, ...], saved.flat_weights.dtype, copy=True)
        _through_scores(saved, b, q_b, k_b, backend.softmax_backward(saved.flat_weights[b, ...], own), dq, dk)

    backend.map(piece, saved.pieces())
    return _unflatten(saved, 0, dq), _unflatten(saved, 1, dk)


def _prepare(
    backend: Backend, q: Array, k: Array, v: Array | None, scale: float | None, mask: Array | None
) -> SavedAttention:
    """Flatten the leading axes, and make room for the weights."""
    xp = backend.xp
    arrays = {"q": q, "k": k} | ({} if v is None else {"v": v})
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    try:
        lead = np.broadcast_shapes(*(shape[:-2] for shape in shapes.values()))
    except ValueError:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the leading axes of {', '.join(shapes)} must broadcast to one shape, got {got}") from None

    def flat(x: Array) -> Array:
        full = (*lead, *x.shape[-2:])
        return xp.reshape(x if x.shape == full else xp.broadcast_to(x, full), (prod(lead), *x.shape[-2:]))

    T_q, T_k = shapes["q"][-2], shapes["k"][-2]
    flat_k = flat(k)
    return SavedAttention(
        backend=backend,
        lead=lead,
        shapes=tuple(shapes.values()),
        scale=1 / sqrt(max(1, shapes["q"][-1])) if scale is None else scale,
        mask=None if mask is None else _flat_mask(backend, mask, lead, T_q, T_k),
        q=flat(q),
        k=flat_k,
        v=None if v is None else flat_k if v is k else flat(v),
        flat_weights=backend.empty((prod(lead), T_q, T_k), like=q, dtype=wide(backend, q.dtype)),
    )


def _flat_mask(backend: Backend, mask: Array, lead: tuple[int, ...], T_q: int, T_k: int) -> Array:
    """(B or 1, T_q or 1, T_k): no larger than what was given needs."""
    full = (*lead, T_q, T_k)
    given = tuple(mask.shape)
    try:
        fits = np.broadcast_shapes(given, full) == full
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"`mask` must broadcast to (..., T_q, T_k) = {full}, got {given}")
    own_lead, rows = given[:-2], given[-2] if len(given) > 1 else 1
    same_for_all = prod(own_lead) == 1
    shape = (1, rows, T_k) if same_for_all else (*lead, rows, T_k)
    if same_for_all:
        mask = backend.xp.reshape(mask, (1, rows, given[-1] if given else 1))
    return backend.xp.reshape(backend.xp.broadcast_to(mask, shape), (prod(shape[:-2]), rows, T_k))


def _weigh(saved: SavedAttention, b: slice, q: Array, k: Array, mask: Array | None) -> Array:
    """Write the weights of one piece."""
    backend, weights = saved.backend, saved.flat_weights[b, ...]
    backend.matmul(q, _T(backend, k), out=weights)  # (b, T_q, D) x (b, D, T_k) -> (b, T_q, T_k)
    return backend.softmax(weights, mask)


def _through_scores(
    saved: SavedAttention,
    b: slice,
    q: Array,
    k: Array,
    dscores: Array,
    dq: Array,
    dk: Array,
    also: tuple[Array, Array] | None = None,
) -> None:
    """From the gradient of one piece's scores to those of its queries (`q` is scaled already) and keys.

    The product `also` is added to the gradient of the keys.
    """
    backend = saved.backend
    into_keys = (_T(backend, dscores), q)  # (b, T_k, T_q) x (b, T_q, D) -> (b, T_k, D)
    _products(backend, dk[b, ...], into_keys, *(() if also is None else (also,)))
    scaled_k = k if saved.scale == 1 else k * saved.scale
    _products(backend, dq[b, ...], (dscores, scaled_k))  # (b, T_q, T_k) x (b, T_k, D) -> (b, T_q, D)


def _products(backend: Backend, out: Array, first: tuple[Array, Array], *others: tuple[Array, Array]) -> None:
    """Write the sum of matrix products, rounded once to the dtype of `out`."""
    direct = first[0].dtype == out.dtype
    total = backend.matmul(*first, out=out if direct else None)
    for pair in others:
        total += backend.matmul(*pair)
    if not direct:
        out[...] = backend.xp.astype(total, out.dtype)


def _T(backend: Backend, x: Array) -> Array:
    return backend.xp.matrix_transpose(x)


def _check_gradient(saved: SavedAttention, name: str, gradient: Array, shape: tuple[int, ...]) -> None:
    check(q=(saved.q, "*"), **{name: (gradient, "*")})
    if tuple(gradient.shape) != shape:
        raise ValueError(
            f"`{name}` must have the shape of what the forward pass returned, {shape}, got {tuple(gradient.shape)}"
        )


def _unflatten(saved: SavedAttention, i: int, gradient: Array) -> Array:
    """The gradient of argument `i` in its own shape, summed over the axes that were broadcast."""
    xp, shape = saved.backend.xp, saved.shapes[i]
    gradient = xp.reshape(gradient, (*saved.lead, *gradient.shape[1:]))
    extra = len(saved.lead) + 2 - len(shape)
    stretched = [axis + extra for axis, length in enumerate(shape[:-2]) if length != gradient.shape[axis + extra]]
    axes = (*range(extra), *stretched)
    return xp.reshape(xp.sum(gradient, axis=axes), shape) if axes else gradient
