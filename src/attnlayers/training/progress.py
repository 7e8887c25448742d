"""What a training tells while it runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes
    ----------
    phase : {"train", "evaluate", "epoch"}
        The last one when an epoch is evaluated and saved.
    epoch, epochs : int
        The current one, from 1, and the last one.
    done, total : int
        Batches of the phase.
    loss : float or None
        Training loss, the mean for each token: over the last report, or in the phase "epoch" over the epoch.
    held_out_loss, accuracy, chrf : float or None
        In the last evaluation: mean loss for each token, share of exact matches, and for free text chrF of 100.
    perplexity : float or None
        Of a language model: the exponential of its held-out loss.
    best : int or None
        The epoch with the lowest held-out loss, whose weights are kept.
    tokens_per_second : float or None
    seconds_left : float or None
        To the end of the last epoch, evaluations included.
    """

    phase: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    held_out_loss: float | None
    accuracy: float | None
    chrf: float | None
    perplexity: float | None
    best: int | None
    tokens_per_second: float | None
    seconds_left: float | None
