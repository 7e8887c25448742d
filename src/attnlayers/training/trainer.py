"""The loop: batches, steps, reports, checkpoints, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from attnbackends import Array

from ..data import Batch, DataError, PairDataset
from ..page.model import attentions
from ..translation import Translation, translate
from .evaluation import Evaluation
from .files import RunError
from .language import Likelihood, TextModel, attention_of
from .optimizers import AdamW, Optimizer, clip_grads
from .plots import attention_figure, heads_figure, training_figure
from .progress import Progress
from .run import METRICS, Checkpoint, RunFolder

REPORT_EVERY = 20
"""Steps between two readings of the loss, the only times that a step waits for a device."""

CHECKPOINT_SECONDS = 30.0
PICTURED = 4
"""Held-out pairs whose heat maps are drawn."""

PICTURED_TOKENS = 60
"""Longest source to draw, where there are shorter ones enough."""


class Trainer:
    """Train a model in a run folder.

    Parameters
    ----------
    run : RunFolder
        If it has a checkpoint, training goes on from there.
    checkpoint_seconds : float
        Time between two checkpoints within an epoch.
    """

    def __init__(self, run: RunFolder, *, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        settings = run.settings
        self.run = run
        self.checkpoint_seconds = checkpoint_seconds
        self.model: Any = settings.model(run.vocabulary)
        self.backend = self.model.backend
        self.train, self.test, self.left_out = self._parts()
        self.batches = self.train.num_batches(settings.batch_size)
        self.test_batches = self.test.num_batches(settings.batch_size)
        self.optimizer: Optimizer = AdamW(settings.lr, weight_decay=settings.weight_decay)
        self.metrics: list[dict[str, Any]] = []
        self.epoch = 0  # epochs that are finished, evaluation included
        self.batch = 0  # steps of the current epoch that are done
        self._loss_sum: Array = self.backend.asarray(np.zeros((), np.float32))  # over tokens, since the last report
        self._tokens = 0  # since the last report
        self._epoch_loss, self._epoch_tokens = 0.0, 0  # from the begin of the epoch up to the last report
        self._best: tuple[int, float] | None = None  # the epoch with the lowest held-out loss, and that loss
        self._interval = 0.0  # seconds of training since the last report
        self._seconds = 0.0  # of training up to the last report
        self._evaluation_seconds = 0.0  # of the last evaluation
        run.sweep()
        checkpoint = run.read_checkpoint()
        if checkpoint is not None:
            self._restore(checkpoint)

    def _parts(self) -> tuple[Any, Any, int]:
        """Pairs to learn from, pairs that are held out, and how many are in neither since they are too long."""
        run, settings = self.run, self.run.settings
        pairs = run.pairs()
        data = settings.dataset(pairs, run.vocabulary).to(self.backend.asarray)
        places = [*settings.split_pairs(pairs)]
        if settings.max_length and isinstance(data, PairDataset):
            places = [some[data.lengths[some] <= settings.max_length] for some in places]
            if not all(map(len, places)):
                shortest = int(data.lengths.min())
                raise DataError(
                    f"--max-length {settings.max_length} leaves too few pairs: the shortest has {shortest} tokens"
                )
        train, test = (data.select(some) for some in places)
        left_out = len(pairs) - len(train) - len(test) if isinstance(data, PairDataset) else 0
        return train, test, left_out

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the held-out loss has not fallen for so long that training has stopped."""
        return self.epoch >= self.run.settings.epochs or self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the held-out loss has not fallen for as many epochs as `patience` says."""
        patience = self.run.settings.patience
        return patience > 0 and self._best is not None and self.epoch - self._best[0] >= patience

    @property
    def accuracy(self) -> float | None:
        """Share of exact matches in the last evaluation."""
        return self._last("accuracy")

    @property
    def best(self) -> int | None:
        """The epoch with the lowest held-out loss so far, from 1 on."""
        return None if self._best is None else self._best[0]

    def steps(self) -> Iterator[Progress]:
        """Train to the end. What is yielded stands between two steps: `save` may be called, or the loop left."""
        while not self.finished:
            yield from self._train_epoch()
            self.save()
            yield from self._evaluate()
            # The checkpoint last: killed before it, the run evaluates and writes all of this again.
            if self.best == self.epoch + 1:
                self._write_best()
            self.run.write_figure("training.png", training_figure(self.metrics))
            finished = self._progress("epoch", self.batches, self.batches)
            self.epoch, self.batch = self.epoch + 1, 0
            self._epoch_loss, self._epoch_tokens = 0.0, 0
            self.save()
            yield finished

    def _write_best(self) -> None:
        self.run.write_weights(self.model.state())
        answers, expected = self._answers()
        self.run.write_figure("attention.png", attention_figure(answers, expected))
        if answers[-1].heads is not None:
            own = attentions(self.model, self.run.vocabulary, answers[-1], reverse=self.run.settings.reverse)
            self.run.write_figure("heads.png", heads_figure(own))

    def save(self) -> None:
        """Keep everything that going on from here needs.

        Raises
        ------
        RunError
            If the training has diverged; the last checkpoint stays.
        """
        self._check_finite(float(self._loss_sum))
        weights = self.model.state()
        self._check_finite(sum(float(np.sum(array, dtype=np.float64)) for array in weights.values()))
        progress = {
            "epoch": self.epoch,
            "batch": self.batch,
            "optimizer_steps": self.optimizer.steps,
            "loss_sum": float(self._loss_sum),
            "tokens": self._tokens,
            "epoch_loss": self._epoch_loss,
            "epoch_tokens": self._epoch_tokens,
            "best": self._best,
            "interval": self._interval,
            "seconds": self._seconds,
            "evaluation_seconds": self._evaluation_seconds,
            "metrics": self.metrics,
        }
        self.run.write_checkpoint(Checkpoint(weights, self.optimizer.state(), progress))
        self.run.write_metrics(self.metrics)

    def _restore(self, checkpoint: Checkpoint) -> None:
        progress = checkpoint.progress
        try:
            self.model.load_state(checkpoint.weights)
            self.optimizer.load_state(checkpoint.optimizer, self.model.params, progress["optimizer_steps"])
            self.epoch, self.batch = progress["epoch"], progress["batch"]
            self._loss_sum = self.backend.asarray(np.asarray(progress["loss_sum"], np.float32))
            self._tokens, self._interval = progress["tokens"], progress["interval"]
            self._epoch_loss, self._epoch_tokens = progress["epoch_loss"], progress["epoch_tokens"]
            self._best = None if progress["best"] is None else tuple(progress["best"])
            self._seconds = progress["seconds"]
            self._evaluation_seconds = progress["evaluation_seconds"]
            self.metrics = progress["metrics"]
        except (KeyError, ValueError) as error:
            raise RunError(f"the checkpoint in {self.run.path} does not fit config.json: {error}") from error

    def _train_epoch(self) -> Iterator[Progress]:
        settings = self.run.settings
        started = saved = perf_counter()
        batches = self.train.batches(settings.batch_size, seed=settings.seed, epoch=self.epoch, start=self.batch)
        for batch in batches:
            self._step(batch)
            self.batch += 1
            reporting = self.batch % REPORT_EVERY == 0 or self.batch == self.batches
            if reporting:
                self.backend.synchronize()  # what was asked of a device has been timed when it is done
            self._interval += perf_counter() - started
            if reporting:
                self._report()
            if perf_counter() - saved > self.checkpoint_seconds:
                self.save()
                saved = perf_counter()
            yield self._progress("train", self.batch, self.batches)
            started = perf_counter()  # what was done with the progress is no part of training

    def _step(self, batch: Batch) -> None:
        """Forward, backward and update. What is dropped is a function of the seed and the number of the step."""
        settings, steps = self.run.settings, self.optimizer.steps
        if settings.dropout:
            self.model.reseed(settings.seed, steps)
        with np.errstate(all="ignore"):  # a diverging training ends in one error, without warnings before it
            loss = self.model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask)
            self.model.backward()
            clip_grads(self.model.grads, settings.max_grad_norm)
            self.optimizer.lr = settings.lr_at(steps, settings.epochs * self.batches)
            self.optimizer.update(self.model.params, self.model.grads)
        self._loss_sum = self._loss_sum + loss * batch.num_tokens
        self._tokens += batch.num_tokens

    def _check_finite(self, number: float) -> None:
        if not np.isfinite(number):
            raise RunError(f"the loss became {number} in epoch {self.epoch + 1}: start again with a smaller --lr")

    def _report(self) -> None:
        """Read the loss off the device, and begin the next report."""
        loss = float(self._loss_sum) / self._tokens
        self._check_finite(loss)
        self._seconds += self._interval
        self._epoch_loss += loss * self._tokens
        self._epoch_tokens += self._tokens
        self._note(loss=loss, tokens_per_second=self._tokens / self._interval)
        self._loss_sum = self._loss_sum * 0
        self._tokens, self._interval = 0, 0.0

    def _evaluate(self) -> Iterator[Progress]:
        """Answer all held-out pairs."""
        started = perf_counter()
        found: Evaluation | Likelihood
        if isinstance(self.model, TextModel):
            found = Likelihood(self.model, self.test)
        else:
            found = Evaluation(self.model, self.test, free_text=self.run.settings.free_text)
        for done in found.batches(self.run.settings.batch_size):
            yield self._progress("evaluate", done, self.test_batches)
        self._evaluation_seconds = perf_counter() - started
        self._check_finite(found.loss)
        if self._best is None or found.loss < self._best[1]:
            self._best = self.epoch + 1, found.loss
        loss = self._epoch_loss / self._epoch_tokens
        self._note(loss=loss, held_out_loss=found.loss, accuracy=found.accuracy, chrf=found.chrf)
        if isinstance(found, Likelihood):
            self.metrics[-1]["perplexity"] = float(np.exp(found.loss))

    def _note(self, **values: float | None) -> None:
        row: dict[str, Any] = dict.fromkeys(METRICS)
        row |= {"epoch": self.epoch + 1, "step": self.epoch * self.batches + self.batch}
        self.metrics.append(row | {"seconds": round(self._seconds, 3)} | values)

    def _last(self, key: str) -> float | None:
        return next((row[key] for row in reversed(self.metrics) if row[key] is not None), None)

    def _progress(self, phase: str, done: int, total: int) -> Progress:
        epochs = self.run.settings.epochs
        steps_done = self.epoch * self.batches + self.batch
        left = None
        if self._seconds and self.metrics:
            each = self._seconds / self.metrics[-1]["step"]
            left = each * (epochs * self.batches - steps_done) + self._evaluation_seconds * (epochs - self.epoch)
        return Progress(
            phase=phase,
            epoch=self.epoch + 1,
            epochs=epochs,
            done=done,
            total=total,
            loss=self._last("loss"),
            held_out_loss=self._last("held_out_loss"),
            accuracy=self.accuracy,
            chrf=self._last("chrf"),
            perplexity=self._last("perplexity"),
            best=self.best,
            tokens_per_second=self._last("tokens_per_second"),
            seconds_left=left,
        )

    def _answers(self) -> tuple[list[Translation], list[str] | None]:
        """Answers to some of the held-out pairs, from short to long, and the right ones, where there are such."""
        if isinstance(self.model, TextModel):
            return attention_of(self.model, self.test), None
        order = np.argsort(self.test.source_lengths[:100], kind="stable")
        fitting = max(PICTURED, int(np.sum(self.test.source_lengths[:100] <= PICTURED_TOKENS)))
        order = order[:fitting]
        places = np.linspace(0, len(order) - 1, min(PICTURED, len(order))).round().astype(int)
        pairs, vocabulary = [self.test.pairs[order[place]] for place in places], self.run.vocabulary
        texts, expected = zip(*pairs, strict=True)
        answers = translate(self.model, vocabulary, texts, reverse=self.run.settings.reverse, max_length=40)
        return answers, [vocabulary.decode(vocabulary.encode(text)) for text in expected]  # as an answer is written
