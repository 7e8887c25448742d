"""The trainers of the book's ``common.trainer``."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy

from attnbackends import Array

from ._data import Rows, pick
from .np import GPU, np
from .util import clip_grads

__all__ = ["GPU", "RnnlmTrainer", "Trainer", "clip_grads", "np", "numpy", "remove_duplicate", "sys", "time"]
__all__ += ["plt"]  # noqa: F822  by `__getattr__`


def __getattr__(name: str) -> Any:
    """`plt`, which takes longer to import than all else: for those who ask for it."""
    if name != "plt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import matplotlib.pyplot

    return matplotlib.pyplot


class _Training:
    """What both trainers do with a batch, and what they tell about it."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model = model
        self.optimizer = optimizer
        self.eval_interval: int | None = None
        self.current_epoch = 0
        self._begin()

    def _begin(self) -> None:
        self._total: Any = 0.0
        self._count = 0
        self._started = time.time()

    def _step(self, x: Array, t: Array, max_grad: float | None) -> None:
        """One update; the loss is added up where it is, and nothing waits for it."""
        loss = self.model.forward(x, t)
        self.model.backward()
        params, grads = remove_duplicate(self.model.params, self.model.grads)
        if max_grad is not None:
            clip_grads(grads, max_grad)
        self.optimizer.update(params, grads)
        self._total = self._total + loss
        self._count += 1

    def _mean(self) -> float:
        """The mean loss since the last call; waits for the device."""
        mean = float(self._total) / self._count
        self._total, self._count = 0.0, 0
        return mean

    def _report(self, iters: int, max_iters: int, what: str) -> None:
        seconds = int(time.time() - self._started)
        print(f"| epoch {self.current_epoch + 1} |  iter {iters + 1} / {max_iters} | time {seconds}[s] | {what}")

    def _plot(self, values: Sequence[float], label: str, ylim: Sequence[float] | None) -> None:
        import matplotlib.pyplot as plt

        if ylim is not None:
            plt.ylim(*ylim)
        plt.plot(numpy.arange(len(values)), values, label="train")
        plt.xlabel(f"iterations (x{self.eval_interval})")
        plt.ylabel(label)
        plt.show()


class Trainer(_Training):
    """Shuffled batches.

    Attributes
    ----------
    loss_list : list of float
        Mean losses, one for each report.
    current_epoch : int
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        super().__init__(model, optimizer)
        self.loss_list: list[float] = []

    def fit(
        self,
        x: Any,
        t: Any,
        max_epoch: int = 10,
        batch_size: int = 32,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train on inputs x (num, ...) and labels t (num, ...), which go to the device of the weights once."""
        data_size = len(x)
        max_iters = data_size // batch_size
        if max_iters == 0:
            raise ValueError(
                f"`x` must have at least batch_size = {batch_size} rows, got {data_size}: "
                "use more data or smaller batches"
            )
        self.eval_interval = eval_interval
        self._begin()
        x, t = Rows(self.model, x), Rows(self.model, t)
        for _ in range(max_epoch):
            order = numpy.random.permutation(numpy.arange(data_size))  # noqa: NPY002  the book's draw
            x.reorder(order)
            t.reorder(order)
            for iters in range(max_iters):
                rows = slice(iters * batch_size, (iters + 1) * batch_size)
                self._step(x[rows], t[rows], max_grad)
                if eval_interval is not None and iters % eval_interval == 0:
                    loss = self._mean()
                    self._report(iters, max_iters, f"loss {loss:.2f}")
                    self.loss_list.append(loss)
            self.current_epoch += 1

    def plot(self, ylim: Sequence[float] | None = None) -> None:
        """Draw `loss_list`."""
        self._plot(self.loss_list, "loss", ylim)


class RnnlmTrainer(_Training):
    """A corpus in order: each row of a batch reads its own stretch of it.

    Attributes
    ----------
    ppl_list : list of float
        Perplexities, one for each report.
    time_idx : int
        How far each row has read.
    current_epoch : int
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        super().__init__(model, optimizer)
        self.time_idx: int | None = None
        self.ppl_list: list[float] | None = None

    def get_batch(self, x: Any, t: Any, batch_size: int, time_size: int) -> tuple[Array, Array]:
        """The next (batch_size, time_size) of both; a row begins where the one before ends, and goes round."""
        data_size = len(x)
        jump = data_size // batch_size
        start = self.time_idx or 0
        places = (numpy.arange(batch_size)[:, None] * jump + start + numpy.arange(time_size)) % data_size
        self.time_idx = start + time_size
        return pick(x, places), pick(t, places)

    def fit(
        self,
        xs: Any,
        ts: Any,
        max_epoch: int = 10,
        batch_size: int = 20,
        time_size: int = 35,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train on a corpus of ids xs (num,) and the ids that follow them, ts (num,)."""
        data_size = len(xs)
        max_iters = data_size // (batch_size * time_size)
        if max_iters == 0:
            raise ValueError(
                f"the corpus must have at least batch_size * time_size = {batch_size * time_size} words, "
                f"got {data_size}: use more text or smaller batches"
            )
        self.time_idx = 0
        self.ppl_list = []
        self.eval_interval = eval_interval
        self._begin()
        x, t = Rows(self.model, xs).rows, Rows(self.model, ts).rows
        for _ in range(max_epoch):
            for iters in range(max_iters):
                self._step(*self.get_batch(x, t, batch_size, time_size), max_grad)
                if eval_interval is not None and iters % eval_interval == 0:
                    perplexity = float(numpy.exp(self._mean()))
                    self._report(iters, max_iters, f"perplexity {perplexity:.2f}")
                    self.ppl_list.append(perplexity)
            self.current_epoch += 1

    def plot(self, ylim: Sequence[float] | None = None) -> None:
        """Draw `ppl_list`."""
        self._plot(self.ppl_list or [], "perplexity", ylim)


def remove_duplicate(params: Sequence[Any], grads: Sequence[Any]) -> tuple[list[Array], list[Array]]:
    """Parameters that share memory, as they are or transposed, once each, with the sum of their gradients.

    The book compares values for that; sharing is what is meant, and looking at values waits for a device.
    """
    kept: dict[tuple[Any, ...], int] = {}
    own_params: list[Array] = []
    own_grads: list[Array] = []
    for param, grad in zip(params, grads, strict=True):
        if (first := kept.get(_memory(param))) is not None:
            own_grads[first] += grad
        elif param.ndim == 2 and (first := kept.get(_memory(param.T))) is not None:
            own_grads[first] += grad.T
        else:
            kept[_memory(param)] = len(own_params)
            own_params.append(param)
            own_grads.append(grad)
    return own_params, own_grads


def _memory(array: Any) -> tuple[Any, ...]:
    """Where an array's values are; two arrays are one if theirs are the same place."""
    described = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return (described["data"][0], tuple(array.shape), tuple(array.strides))
