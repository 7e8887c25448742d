"""The loop: batches, steps, reports, checkpoints, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from attnbackends import share_of_batch

from ..data import Batch, DataError, PairDataset
from ..distributed import Ranks
from ..page.model import attentions
from ..page.weights import Attention
from ..translation import Translation, translate
from .evaluation import Evaluation
from .files import RunError
from .language import Likelihood, TextModel, attention_of
from .ledger import Ledger
from .optimizers import AdamW, Optimizer, clip_grads
from .plots import attention_figure, heads_figure, training_figure
from .progress import Progress
from .run import Checkpoint, RunFolder

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
    ranks : Ranks, optional
        Processes that train together: each opens the run and makes a trainer. Only the first writes.

    Attributes
    ----------
    stopped : bool
        Whether training has ended because `stop` was called, on any rank.
    """

    def __init__(
        self, run: RunFolder, *, checkpoint_seconds: float = CHECKPOINT_SECONDS, ranks: Ranks | None = None
    ) -> None:
        settings = run.settings
        self.run, self.ranks = run, ranks or Ranks()
        self.checkpoint_seconds = checkpoint_seconds
        self.model: Any = settings.model(run.vocabulary)
        self.backend = self.model.backend
        self.train, self.test, self.left_out = self._parts()
        self.batches = self.train.num_batches(settings.batch_size)
        self.optimizer: Optimizer = AdamW(settings.lr, weight_decay=settings.weight_decay)
        test_batches = self.test.num_batches(settings.batch_size)
        self._ledger = Ledger(self.backend, self.batches, test_batches, settings.epochs)
        self._stopping = self.stopped = False
        if self.ranks.first:
            run.sweep()
        checkpoint = run.read_checkpoint()
        if checkpoint is not None:
            self._restore(checkpoint)

    def _parts(self) -> tuple[Any, Any, int]:
        """Pairs to learn from, pairs that are held out, and how many are in neither since they are too long."""
        run, settings, size = self.run, self.run.settings, self.ranks.size
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
        if min(len(train), settings.batch_size) < size:
            few = f"{len(train)} pairs to learn from" if len(train) < size else f"--batch-size {settings.batch_size}"
            raise RunError(
                f"every batch is shared by {size} ranks, and each needs a pair, got {few}: start fewer ranks"
            )
        left_out = len(pairs) - len(train) - len(test) if isinstance(data, PairDataset) else 0
        return train, test, left_out

    @property
    def epoch(self) -> int:
        """Epochs that are finished, evaluation included."""
        return self._ledger.epoch

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The table of metrics so far."""
        return self._ledger.rows

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the held-out loss has not fallen for so long that training has stopped."""
        return self.epoch >= self.run.settings.epochs or self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the held-out loss has not fallen for as many epochs as `patience` says."""
        patience = self.run.settings.patience
        return patience > 0 and self.best is not None and self.epoch - self.best >= patience

    @property
    def accuracy(self) -> float | None:
        """Share of exact matches in the last evaluation."""
        return self._ledger.last("accuracy")

    @property
    def best(self) -> int | None:
        """The epoch with the lowest held-out loss so far, from 1 on."""
        return None if self._ledger.best is None else self._ledger.best[0]

    def stop(self) -> None:
        """End training after the current step; a signal handler may call it, on one rank or on all."""
        self._stopping = True

    def steps(self) -> Iterator[Progress]:
        """Train to the end, or until `stop` was called: the state is saved then, and `stopped` is True.

        What is yielded stands between two steps: `save` may be called, or the loop left; by all ranks alike.
        """
        ledger = self._ledger
        while not self.finished and not self._ends_here():
            yield from self._train_epoch()
            if self.stopped:
                return
            self.save()
            yield from self._evaluate()
            if self.stopped:
                return
            if self.ranks.first:
                # The checkpoint last: killed before it, the run evaluates and writes all of this again.
                if self.best == self.epoch + 1:
                    self._write_best()
                self.run.write_figure("training.png", training_figure(self.metrics))
            finished = ledger.progress("epoch", self.batches)
            ledger.end_epoch()
            self.save()
            yield finished

    def _ends_here(self) -> bool:
        """Whether any rank is to stop; the state is saved then."""
        if self.ranks.any(self._stopping):
            self.save()
            self.stopped = True
        return self.stopped

    def _write_best(self) -> None:
        self.run.write_weights(self.model.state())
        answers, expected = self._answers()
        self.run.write_figure("attention.png", attention_figure(answers, expected))
        if answers[-1].heads is not None:
            self.run.write_figure("heads.png", heads_figure(self._heads(answers[-1])))

    def _heads(self, answer: Translation) -> list[Attention]:
        """The heads of all attentions of an answer."""
        if isinstance(self.model, TextModel):
            sides = ("next token", "token")
            return [Attention("self", np.asarray(answer.heads), answer.target_tokens, answer.source_tokens, sides)]
        return attentions(self.model, self.run.vocabulary, answer, reverse=self.run.settings.reverse)

    def save(self) -> None:
        """Keep everything that going on from here needs.

        Raises
        ------
        RunError
            If the training has diverged; the last checkpoint stays.
        RanksError
            If ranks have come to different weights; the last checkpoint stays.
        """
        self.ranks.check_equal(self.model.params, f"weights after step {self.optimizer.steps}")
        if not self.ranks.first:
            return
        progress = self._ledger.state() | {"optimizer_steps": self.optimizer.steps}
        weights = self.model.state()
        self._ledger.check_finite(sum(float(np.sum(array, dtype=np.float64)) for array in weights.values()))
        self.run.write_checkpoint(Checkpoint(weights, self.optimizer.state(), progress))
        self.run.write_metrics(self.metrics)

    def _restore(self, checkpoint: Checkpoint) -> None:
        progress = checkpoint.progress
        try:
            self.model.load_state(checkpoint.weights)
            self.optimizer.load_state(checkpoint.optimizer, self.model.params, progress["optimizer_steps"])
            self._ledger.load_state(progress)
        except (KeyError, ValueError) as error:
            raise RunError(f"the checkpoint in {self.run.path} does not fit config.json: {error}") from error

    def _train_epoch(self) -> Iterator[Progress]:
        settings, ledger = self.run.settings, self._ledger
        started = saved = perf_counter()
        batches = self.train.batches(
            settings.batch_size, seed=settings.seed, epoch=self.epoch, start=ledger.batch, share=self.ranks.share
        )
        for batch in batches:
            pausing = self._step(batch, perf_counter() - saved > self.checkpoint_seconds)
            reporting = ledger.batch % REPORT_EVERY == 0 or ledger.batch == self.batches
            if reporting:
                self.backend.synchronize()  # what was asked of a device has been timed when it is done
            ledger.add_seconds(perf_counter() - started)
            if reporting:
                ledger.report()
            if pausing and not self._ends_here():
                self.save()
                saved = perf_counter()
            yield ledger.progress("train", ledger.batch)
            if self.stopped:
                return
            started = perf_counter()  # what was done with the progress is no part of training

    def _step(self, batch: Batch, saving: bool) -> bool:
        """Forward, backward and update; returns whether any rank wants to save or to stop after this step.

        What is dropped is a function of the seed, the number of the step and the place in the whole batch.
        """
        settings, steps = self.run.settings, self.optimizer.steps
        if settings.dropout:
            self.model.reseed(settings.seed, steps)
        with np.errstate(all="ignore"):  # a diverging training ends in one error, without warnings before it
            with share_of_batch(batch.first, len(batch.indices), batch.whole):
                loss = self.model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask)
                self.model.backward()
            # Ranks wait for each other here, where a signal is handled, and not in the reduction, where none is.
            pausing = self.ranks.any(saving or self._stopping)
            (loss,) = self.ranks.average(self.model.grads, batch.num_tokens, loss)
            clip_grads(self.model.grads, settings.max_grad_norm)
            self.optimizer.lr = settings.lr_at(steps, settings.epochs * self.batches)
            self.optimizer.update(self.model.params, self.model.grads)
        self._ledger.add(loss, batch.whole_tokens)
        return pausing

    def _evaluate(self) -> Iterator[Progress]:
        """Answer all held-out pairs."""
        settings, started = self.run.settings, perf_counter()
        found: Evaluation | Likelihood
        if isinstance(self.model, TextModel):
            found = Likelihood(self.model, self.test)
        else:
            found = Evaluation(self.model, self.test, free_text=settings.free_text, ranks=self.ranks)
        for done in found.batches(settings.batch_size):
            yield self._ledger.progress("evaluate", done)
            if self._ends_here():
                return
        self._ledger.evaluated(found, perf_counter() - started)

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
