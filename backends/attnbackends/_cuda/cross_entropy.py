"""Cross-entropy on CUDA, by the kernels of ``kernels/loss.cu``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._cross_entropy import CrossEntropyCall
from .._ids import Check
from .compiled import Kernels
from .ids import DeviceIds

Array = Any

ROW_THREADS = 256
"""Threads for a row of logits at most."""

MEAN_THREADS = 1024
"""Threads of the one block that adds up the rows."""


class Kept(NamedTuple):
    """What `CudaCrossEntropy.backward` reads again, beside the call."""

    logits: Array  # (M, V), in float32 or better
    rows: Array  # (4, M): loss, whether it counts, largest logit, sum of exponentials above it
    divisor: Array  # ()


class CudaCrossEntropy:
    """Cross-entropy in two launches forward and one backward, without an array of probabilities.

    Parameters
    ----------
    kernels : Kernels
    ids : DeviceIds
    """

    def __init__(self, kernels: Kernels, ids: DeviceIds) -> None:
        self._xp, self._kernels, self._ids = kernels.xp, kernels, ids

    def forward(self, call: CrossEntropyCall) -> tuple[Array, Kept] | None:
        """The loss (), and what `backward` reads; None for what the kernels do not take."""
        xp, (M, V) = self._xp, call.logits.shape
        if max(M, V) >= 2**31:
            return None
        logits, labels = (xp.ascontiguousarray(array) for array in (call.logits, call.labels))
        if logits.dtype.itemsize < 4:
            logits = logits.astype(np.float32)
        dtype, threads = logits.dtype, _threads(V)
        rows, loss, divisor = (xp.empty(shape, dtype) for shape in ((4, M), (), ()))
        check = Check("labels", V, call.advice, call.ignore_label)
        _, *where = self._ids.numbers(check)
        numbers = (np.int32(V), dtype.type(call.smoothing), *where)
        shared = dtype.itemsize
        self._kernels.launch(
            "cross_entropy_rows", (M, threads), (rows, logits, labels, *numbers), shared=threads * shared
        )
        arguments = loss, divisor, rows, np.int64(M)
        self._kernels.launch("cross_entropy_mean", (1, MEAN_THREADS), arguments, shared=MEAN_THREADS * shared)
        return loss, Kept(logits, rows, divisor)

    def backward(self, call: CrossEntropyCall, kept: Kept, dloss: float | Array) -> Array:
        """As `OwnCrossEntropy.vjp`."""
        xp, (M, V), dtype = self._xp, kept.logits.shape, kept.logits.dtype
        dlogits, labels = xp.empty((M, V), dtype), xp.ascontiguousarray(call.labels)
        if isinstance(dloss, xp.ndarray):
            number, place = dtype.type(0), xp.ascontiguousarray(dloss, dtype)
        else:
            number, place = dtype.type(dloss), np.uintp(0)
        numbers = (np.int64(M), np.int32(V), dtype.type(call.smoothing), number, place)
        self._kernels.launch(
            "cross_entropy_backward", (M, _threads(V)), (dlogits, kept.logits, labels, *kept[1:], *numbers)
        )
        return dlogits


def _threads(V: int) -> int:
    """A power of two."""
    return min(ROW_THREADS, max(32, 1 << (V - 1).bit_length()))
