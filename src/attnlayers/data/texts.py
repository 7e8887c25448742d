"""Plain text for a language model: lines of a file, and windows of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np

from attnbackends import Array

from .batches import Ids, shuffled
from .dataset import IGNORE, Batch
from .errors import DataError
from .vocabulary import Vocabulary

__all__ = ["HELD_OUT", "TextDataset", "read_text", "split_text"]

HELD_OUT = 0.1
"""Share of the lines that is held out: the last ones, so that none of them continues what was learned by heart."""


def read_text(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, each with its line end, which is one newline.

    Raises
    ------
    DataError
        If the file is not UTF-8, or has fewer than two lines that hold something.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from None
    lines = [f"{line}\n" for line in text.split("\n")[: -1 if text.endswith("\n") else None]]
    if sum(bool(line.strip()) for line in lines) < 2:
        raise DataError(f"{path} must hold two lines of text or more: some are learned from, and the last are held out")
    return lines


def split_text(lines: Sequence[object]) -> tuple[Ids, Ids]:
    """Places of the lines to learn from, and of those that are held out."""
    count = len(lines) - max(1, round(HELD_OUT * len(lines)))
    return np.arange(count), np.arange(count, len(lines))


class TextDataset:
    """Windows of a text, each of them with the tokens that follow one step later.

    Parameters
    ----------
    lines : sequence of str
    vocabulary : Vocabulary
    context : int
        Tokens of a window.

    Attributes
    ----------
    lines : list of str
    windows : NumPy array (num, context + 1), int64
        The last token of a window is the first of the next; after the end of the text, the windows hold `IGNORE`.
    """

    def __init__(self, lines: Sequence[str], vocabulary: Vocabulary, context: int) -> None:
        self.vocabulary, self.context = vocabulary, context
        self._asarray: Callable[[np.ndarray], Array] = np.asarray
        self._set(list(lines), [np.array(vocabulary.encode(line), dtype=np.int64) for line in lines])

    def _set(self, lines: list[str], rows: list[Ids]) -> None:
        self.lines, self._rows = lines, rows
        ids = np.concatenate([*rows, np.zeros(0, np.int64)])
        if len(ids) < 2:
            raise DataError(f"a text needs two tokens or more, got {len(ids)}")
        # A text that is shorter than a window is one window of its own length.
        length = min(self.context, len(ids) - 1)
        count = -(-(len(ids) - 1) // length)
        places = np.arange(count)[:, None] * length + np.arange(length + 1)  # (num, length + 1)
        self.windows = np.where(places < len(ids), ids[np.minimum(places, len(ids) - 1)], IGNORE)

    def __len__(self) -> int:
        return len(self.windows)

    def __repr__(self) -> str:
        return f"<TextDataset: {len(self)} windows of {self.windows.shape[1] - 1} tokens>"

    def to(self, asarray: Callable[[np.ndarray], Array]) -> Self:
        """The same data set with batches as arrays of another library or device."""
        moved = copy(self)
        moved._asarray = asarray
        return moved

    def select(self, places: Ids) -> Self:
        """The text of the lines at these places, in this order."""
        part = copy(self)
        part._set([self.lines[place] for place in places], [self._rows[place] for place in places])
        return part

    def num_batches(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return -(-len(self) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        start: int = 0,
        share: Callable[[int], slice] | None = None,
    ) -> Iterator[Batch]:
        """The batches of one epoch from `start` on; with `seed`, in another order in each epoch.

        `share` says which windows of a batch of so many are wanted, as `attnlayers.distributed.Ranks.share` does.
        """
        order = np.arange(len(self)) if seed is None else shuffled(seed, epoch).permutation(len(self))
        firsts = range(start * batch_size, len(self), batch_size)
        wanted = (order[first : first + batch_size] for first in firsts)
        return (self.batch(indices, share(len(indices)) if share else None) for indices in wanted)

    def batch(self, indices: Ids, share: slice | None = None) -> Batch:
        """The batch of the windows at `indices`, or a share of it; there are no sources (N, 0)."""
        share = slice(0, len(indices)) if share is None else share
        windows = self.windows[indices[share]]
        inputs, labels = windows[:, :-1], windows[:, 1:]
        none = inputs[:, :0]
        return Batch(
            sources=self._asarray(none),
            source_mask=self._asarray(none == 0),
            inputs=self._asarray(np.where(inputs == IGNORE, Vocabulary.PAD, inputs)),
            labels=self._asarray(labels),
            num_tokens=int(np.sum(labels != IGNORE)),
            indices=indices[share],
            first=share.start,
            whole=len(indices),
            whole_tokens=int(np.sum(self.windows[indices, 1:] != IGNORE)),
        )
