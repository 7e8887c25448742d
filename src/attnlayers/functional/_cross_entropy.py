"""Cross-entropy of softmax, over labels."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from attnbackends import Array, Backend, CrossEntropyCall, DType, OwnCrossEntropy, check_ids

from .arrays import row_shift, wide_empty
from .checks import check
from .dtypes import narrow, wide, widen
from .integers import FARTHEST, integer


class SavedCrossEntropy(NamedTuple):
    """What `cross_entropy_backward` needs."""

    backend: Backend
    shape: tuple[int, ...]  # of the logits
    dtype: DType
    vjp: Callable[[float | Array], Array]


class Kept(NamedTuple):
    """What the gradient looks at again."""

    probabilities: Array  # (M, V), less what smoothing asks of every class; 0 in the rows that are ignored
    places: Array  # (M,), where the probabilities of the labels are in the flat array
    counted: Array  # (M,), 1 for rows that count, else 0
    divisor: Array  # (), how many count, at least 1


def cross_entropy(
    logits: Array, labels: Array, *, ignore_label: int = -1, label_smoothing: float = 0.0
) -> tuple[Array, SavedCrossEntropy]:
    """Mean of ``-log(softmax(logits)[label])`` over the labels that count.

    Parameters
    ----------
    logits : array (..., V)
    labels : integer array (...)
        Ids 0 to V - 1, or `ignore_label`.
    ignore_label : int
        Label of the places that do not count. Where none counts the loss is 0.
    label_smoothing : float
        Share of the wanted probability that is spread over all V classes, the label's among them; it lies in [0, 1).

    Returns
    -------
    loss : array ()
        On the device; ``float(loss)`` waits for it.
    saved : SavedCrossEntropy

    Raises
    ------
    IndexError
        For a label outside 0 .. V - 1 that is not `ignore_label`; from a device when a value is next read
        (`Backend.take_rows`).
    TypeError, ValueError, BackendError
        For arguments that do not fit each other.

    References
    ----------
    Deep Learning from Scratch 2, section 1.3.3; ``TimeSoftmaxWithLoss`` of section 5.4.2.
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7 (`label_smoothing`).

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = cross_entropy(np.zeros((3, 4)), np.array([0, 3, -1]))
    >>> bool(loss == np.log(4))
    True
    """
    backend = check(logits=(logits, "... V"), labels=(labels, "...: int"))
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` must lie in [0, 1), got {label_smoothing}")
    xp, (*rows, V) = backend.xp, logits.shape
    labels = xp.astype(xp.reshape(labels, (prod(rows),)), xp.int64, copy=False)
    ignore_label = max(-FARTHEST, min(integer("ignore_label", ignore_label), FARTHEST))  # no label is as large
    flat = xp.reshape(logits, (prod(rows), V))
    call = CrossEntropyCall(flat, labels, ignore_label, label_smoothing, "give logits a column for each label")
    own = (backend.cross_entropy(call) if 0 not in flat.shape else None) or _forward(backend, call)
    saved = SavedCrossEntropy(backend, tuple(logits.shape), logits.dtype, own.vjp)
    return narrow(backend, own.loss, logits.dtype), saved


def cross_entropy_backward(saved: SavedCrossEntropy, dloss: float | Array = 1.0) -> Array:
    """Gradient of `cross_entropy`: dloss, a number -> dlogits (..., V)."""
    dlogits = saved.backend.xp.reshape(saved.vjp(dloss), saved.shape)
    return narrow(saved.backend, dlogits, saved.dtype)


# -- for every library


def _forward(backend: Backend, call: CrossEntropyCall) -> OwnCrossEntropy:
    """The loss, and `_backward`."""
    xp, (logits, labels, ignore_label, smoothing, advice) = backend.xp, call
    (rows, V), dtype = logits.shape, wide(backend, logits.dtype)
    counts = labels != ignore_label
    labels = xp.where(counts, labels, xp.zeros_like(labels))
    if backend.on_host and (V or bool(xp.any(counts))):
        check_ids(xp, labels, V, "labels", advice, ignore_label)
    probabilities, losses = (wide_empty(backend, shape, logits) for shape in ((rows, V), (rows,)))
    places = labels + backend.asarray(np.arange(rows) * V, like=labels)
    counted = xp.astype(counts, dtype)

    def chunk(m: slice) -> None:
        p = probabilities[m, ...]
        p[...] = widen(backend, logits[m, ...])
        p -= row_shift(xp, p)[1]
        losses[m] = (smoothing - 1) * xp.take(xp.reshape(p, (-1,)), places[m] - m.start * V, axis=0)
        if smoothing:
            losses[m] -= smoothing / V * xp.sum(p, axis=-1)
        backend.apply(xp.exp, p)
        total = xp.sum(p, axis=-1)
        losses[m] += xp.log(total)
        p /= total[:, None]
        if smoothing:
            p -= smoothing / V
        ignored = ~counts[m]
        backend.fill(losses[m], ignored, 0)  # whatever an ignored row holds
        backend.fill(p, ignored[:, None], 0)

    if not V:
        losses[...] = 0
    elif rows:
        backend.map(chunk, backend.chunks(rows, 2 * V * xp.finfo(dtype).bits // 8))
    divisor = xp.sum(counted)
    divisor = xp.where(divisor == 0, xp.ones_like(divisor), divisor)
    kept = Kept(probabilities, places, counted, divisor)
    return OwnCrossEntropy(xp.sum(losses) / divisor, partial(_backward, backend, smoothing, kept))


def _backward(backend: Backend, smoothing: float, kept: Kept, dloss: float | Array) -> Array:
    """dlogits (M, V)."""
    factor = dloss / kept.divisor
    dlogits = kept.probabilities * factor
    if 0 not in dlogits.shape:
        flat = backend.xp.reshape(dlogits, (-1,))
        backend.scatter_add(flat, kept.places, (smoothing - 1) * factor * kept.counted)
    return dlogits
