"""What a training keeps account of: losses, times and the table of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attnbackends import Array, Backend

from .evaluation import Evaluation
from .files import RunError
from .language import Likelihood
from .progress import Progress
from .run import METRICS


class Ledger:
    """Losses and times of a training, summed up between reports.

    Parameters
    ----------
    backend : Backend
        Where losses come from; they are read when a report asks for them, since a device is waited for then.
    batches, test_batches : int
        Batches of an epoch, and of the held-out pairs.
    epochs : int
        The last epoch.

    Attributes
    ----------
    epoch, batch : int
        Epochs that are finished, evaluation included, and steps of the current one that are done.
    rows : list of dict
        The table of metrics.
    best : (int, float) or None
        The epoch with the lowest held-out loss, from 1 on, and that loss.
    """

    def __init__(self, backend: Backend, batches: int, test_batches: int, epochs: int) -> None:
        self._backend = backend
        self.batches, self.test_batches, self.epochs = batches, test_batches, epochs
        self.rows: list[dict[str, Any]] = []
        self.epoch = self.batch = 0
        self.best: tuple[int, float] | None = None
        self._loss_sum: Array = self._number(0.0)  # over tokens, since the last report
        self._tokens = 0  # since the last report
        self._epoch_loss, self._epoch_tokens = 0.0, 0  # from the begin of the epoch up to the last report
        self._interval = 0.0  # seconds of training since the last report
        self._seconds = 0.0  # of training up to the last report
        self._evaluation_seconds = 0.0  # of the last evaluation

    def _number(self, value: float) -> Array:
        return self._backend.asarray(np.asarray(value, np.float32))

    # -- in and out

    def state(self) -> dict[str, Any]:
        """All of it, as JSON."""
        self.check_finite(float(self._loss_sum))
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": float(self._loss_sum),
            "tokens": self._tokens,
            "epoch_loss": self._epoch_loss,
            "epoch_tokens": self._epoch_tokens,
            "best": self.best,
            "interval": self._interval,
            "seconds": self._seconds,
            "evaluation_seconds": self._evaluation_seconds,
            "metrics": self.rows,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._loss_sum = self._number(state["loss_sum"])
        self._tokens, self._interval = state["tokens"], state["interval"]
        self._epoch_loss, self._epoch_tokens = state["epoch_loss"], state["epoch_tokens"]
        self.best = None if state["best"] is None else tuple(state["best"])
        self._seconds = state["seconds"]
        self._evaluation_seconds = state["evaluation_seconds"]
        self.rows = state["metrics"]

    def check_finite(self, number: float) -> None:
        """Refuse to go on with a loss, or a sum of weights, that is no number.

        Raises
        ------
        RunError
        """
        if not np.isfinite(number):
            raise RunError(f"the loss became {number} in epoch {self.epoch + 1}: start again with a smaller --lr")

    # -- what happens

    def add(self, loss: Array, tokens: int) -> None:
        """A step was done: its mean loss, on the device, over so many tokens."""
        self._loss_sum = self._loss_sum + loss * tokens
        self._tokens += tokens
        self.batch += 1

    def add_seconds(self, seconds: float) -> None:
        """A step took so long."""
        self._interval += seconds

    def report(self) -> None:
        """Read the loss off the device, and begin the next report."""
        loss = float(self._loss_sum) / self._tokens
        self.check_finite(loss)
        self._seconds += self._interval
        self._epoch_loss += loss * self._tokens
        self._epoch_tokens += self._tokens
        self._note(loss=loss, tokens_per_second=self._tokens / self._interval)
        self._loss_sum = self._loss_sum * 0
        self._tokens, self._interval = 0, 0.0

    def evaluated(self, found: Evaluation | Likelihood, seconds: float) -> None:
        """The held-out pairs have been answered."""
        self._evaluation_seconds = seconds
        self.check_finite(found.loss)
        if self.best is None or found.loss < self.best[1]:
            self.best = self.epoch + 1, found.loss
        loss = self._epoch_loss / self._epoch_tokens
        self._note(loss=loss, held_out_loss=found.loss, accuracy=found.accuracy, chrf=found.chrf)
        if isinstance(found, Likelihood):
            self.rows[-1]["perplexity"] = float(np.exp(found.loss))

    def end_epoch(self) -> None:
        """The epoch is finished."""
        self.epoch, self.batch = self.epoch + 1, 0
        self._epoch_loss, self._epoch_tokens = 0.0, 0

    def _note(self, **values: float | None) -> None:
        row: dict[str, Any] = dict.fromkeys(METRICS)
        row |= {"epoch": self.epoch + 1, "step": self.epoch * self.batches + self.batch}
        self.rows.append(row | {"seconds": round(self._seconds, 3)} | values)

    # -- what it tells

    def last(self, key: str) -> float | None:
        """The last entry of a column."""
        return next((row[key] for row in reversed(self.rows) if row[key] is not None), None)

    def progress(self, phase: str, done: int) -> Progress:
        """Where the training is, with so many batches of the phase done."""
        steps_done = self.epoch * self.batches + self.batch
        left = None
        if self._seconds and self.rows:
            each = self._seconds / self.rows[-1]["step"]
            left = each * (self.epochs * self.batches - steps_done)
            left += self._evaluation_seconds * (self.epochs - self.epoch)
        return Progress(
            phase=phase,
            epoch=self.epoch + 1,
            epochs=self.epochs,
            done=done,
            total=self.test_batches if phase == "evaluate" else self.batches,
            loss=self.last("loss"),
            held_out_loss=self.last("held_out_loss"),
            accuracy=self.last("accuracy"),
            chrf=self.last("chrf"),
            perplexity=self.last("perplexity"),
            best=None if self.best is None else self.best[0],
            tokens_per_second=self.last("tokens_per_second"),
            seconds_left=left,
        )
