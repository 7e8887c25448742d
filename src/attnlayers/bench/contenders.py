"""This library's attention, NumPy written the obvious way, and the book's loops, on one set of inputs or another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnbackends import Backend

from .. import functional as F
from ..layers import TimeAttention
from .cases import Case, Inputs
from .loops import BookTimeAttention


class LeftOutError(Exception):
    """A contender cannot take part; the text says why."""


class Contender:
    """Attention of one library on some sets of inputs. Every call returns when the device is done.

    Parameters
    ----------
    case : Case
    sets : sequence of inputs
        In the library's own arrays.

    Attributes
    ----------
    precision : str or None
        What it multiplies in, where that is not the dtype of its arrays.
    """

    precision: str | None = None

    def __init__(self, case: Case, sets: Sequence[tuple[Any, ...]]) -> None:
        self.case = case
        self.sets = sets
        self.kept: list[Any] = []

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """out, and what `pull` needs."""
        raise NotImplementedError

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        """dq, dk, dv; or dq, dk where keys are the values."""
        raise NotImplementedError

    def wait(self, results: Any) -> None:
        """Until the device has made these results."""

    def to_numpy(self, array: Any) -> np.ndarray:
        """In float32, (batch, T, D)."""
        raise NotImplementedError

    # -- what is timed

    def forward(self, i: int) -> Any:
        out, saved = self.run(self.sets[i % len(self.sets)])
        self.wait(out)
        return out, saved

    def keep(self) -> None:
        """Forward of all sets, for `backward`."""
        self.kept = [self.run(inputs) for inputs in self.sets]
        self.wait([out for out, _ in self.kept])

    def backward(self, i: int) -> Any:
        """After `keep`."""
        place = i % len(self.sets)
        gradients = self.pull(self.kept[place][1], self.sets[place][3])
        self.wait(gradients)
        return gradients

    def both(self, i: int) -> tuple[Any, ...]:
        inputs = self.sets[i % len(self.sets)]
        out, saved = self.run(inputs)
        results = (out, *self.pull(saved, inputs[3]))
        self.wait(results)
        return results

    def results(self) -> list[np.ndarray]:
        """out and, unless the case has none, the gradients of the first set."""
        arrays = (self.forward(0)[0],) if self.case.forward_only else self.both(0)
        return [self.to_numpy(array) for array in arrays]


class OnBackend(Contender):
    """A contender on arrays of one of our backends."""

    def __init__(self, case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str = "float32") -> None:
        self.backend = backend
        kind = dtype_of(backend, dtype)

        def move(inputs: Inputs) -> tuple[Any, ...]:
            q, k, v, dout = (backend.asarray(x.astype(kind, copy=False)) for x in inputs)
            return q, k, k if case.shared else v, dout

        super().__init__(case, [move(inputs) for inputs in sets])

    def wait(self, results: Any) -> None:
        self.backend.synchronize()

    def to_numpy(self, array: Any) -> np.ndarray:
        return self.backend.to_numpy(array).astype(np.float32)


class Ours(OnBackend):
    """`functional.attention` with its defaults; `TimeAttention` where keys are the values."""

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        q, k, v, _ = inputs
        if self.case.shared:
            layer = TimeAttention()
            return layer.forward(k, q), layer
        out, saved = F.attention(q, k, v, causal=self.case.causal)
        return out, saved

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        if self.case.shared:
            dk, dq = saved.backward(dout)
            return dq, dk
        return F.attention_backward(saved, dout)


class Obvious(OnBackend):
    """Batched products and a softmax over the last axis, as one writes them down first."""

    def __init__(self, case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str = "float32") -> None:
        super().__init__(case, sets, backend, dtype)
        xp = backend.xp
        self.mask = xp.tril(xp.ones((case.T_q, case.T_k), dtype=bool)) if case.causal else None

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        xp = self.backend.xp
        q, k, v, _ = inputs
        scores = q @ k.swapaxes(1, 2)  # (batch, T_q, D) x (batch, D, T_k) -> (batch, T_q, T_k)
        scores *= self.case.scale
        if self.mask is not None:
            scores = xp.where(self.mask, scores, -xp.inf)
        weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return weights @ v, (inputs, weights)

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        (q, k, v, _), weights = saved
        dv = weights.swapaxes(1, 2) @ dout
        dweights = dout @ v.swapaxes(1, 2)
        dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
        dscores *= self.case.scale
        dq, dk = dscores @ k, dscores.swapaxes(1, 2) @ q
        return (dq, dk + dv) if self.case.shared else (dq, dk, dv)


class Loops(OnBackend):
    """The book's way: one decoder step after the other."""

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        q, k, _, _ = inputs
        layer = BookTimeAttention()
        return layer.forward(k, q), layer

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        dk, dq = saved.backward(dout)
        return dq, dk


def dtype_of(backend: Backend, name: str) -> Any:
    """A dtype that NumPy and `backend` know by this name."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise LeftOutError("bfloat16 needs ml_dtypes") from error
    return np.dtype(ml_dtypes.bfloat16)
