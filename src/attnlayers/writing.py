"""Text that goes on: a prompt in, what a language model writes after it out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .data import DataError, Vocabulary
from .models import CausalLM

UNFINISHED = "�"
"""What a decoder shows of a character whose last bytes have not come yet."""


class Writer:
    """A language model that takes and gives text.

    Parameters
    ----------
    model : CausalLM
    tokenizer : Vocabulary or tokenizers.Tokenizer, optional
        Default: the one that the model was read with.

    Raises
    ------
    DataError
        If there is no tokenizer.

    Examples
    --------
    >>> from attnlayers.data import Vocabulary
    >>> writer = Writer(CausalLM(8, 8, 2, 16, 1, max_length=20), Vocabulary("abcde", "character"))
    >>> [text] = writer.write(["abba"], max_tokens=5)
    >>> text == "".join(pieces[0] for pieces in writer.stream(["abba"], max_tokens=5))
    True
    """

    def __init__(self, model: CausalLM, tokenizer: Any = None) -> None:
        self.model = model
        self.tokenizer = model.tokenizer if tokenizer is None else tokenizer
        if self.tokenizer is None:
            raise DataError(
                "the model has no tokenizer: its folder needs a tokenizer.json, and that the library tokenizers, which "
                "comes with 'attnlayers[train]'; model.generate takes and gives ids"
            )
        self.tokens = 0
        """How many tokens the last text took, over all prompts."""

    def write(self, prompts: Sequence[str], max_tokens: int = 64, **options: Any) -> list[str]:
        """What follows each prompt; arguments are those of `stream`."""
        found = [""] * len(prompts)
        for pieces in self.stream(prompts, max_tokens, **options):
            found = [text + piece for text, piece in zip(found, pieces, strict=True)]
        return found

    def stream(
        self, prompts: Sequence[str], max_tokens: int = 64, *, stop: Sequence[str] = (), **options: Any
    ) -> Iterator[list[str]]:
        """What follows each prompt, piece by piece.

        Parameters
        ----------
        prompts : sequence of str
        max_tokens : int
            Tokens to add to each at most; fewer where the model has no further positions.
        stop : sequence of str
            Texts before which an answer ends. Tokens that the model knows as its end do the same.
        **options
            Those of `CausalLM.generate`: ``temperature``, ``top_k``, ``top_p``, ``seed``.

        Yields
        ------
        list of str
            A piece for each prompt, often empty: whole characters, that can be no begin of a `stop` text.
        """
        if not all(stop):
            raise DataError("a text to stop at must not be empty")
        rows = [self._encode(place, prompt) for place, prompt in enumerate(prompts)]
        steps = self.model.generate(rows, min(max_tokens, self._room(rows)), **options)
        return self._stream(rows, steps, stop)

    def _stream(self, rows: list[list[int]], steps: Iterator[np.ndarray], stop: Sequence[str]) -> Iterator[list[str]]:
        texts = [_Text(self, row, stop) for row in rows]
        self.tokens = 0
        for ids in steps:
            self.tokens += sum(not text.ended for text in texts)
            yield [text.add(int(id_)) for text, id_ in zip(texts, ids, strict=True)]
            if all(text.ended for text in texts):
                break
        yield [text.rest() for text in texts]

    def _encode(self, place: int, prompt: str) -> list[int]:
        own = self.tokenizer
        ids: list[int] = own.encode(prompt) if isinstance(own, Vocabulary) else own.encode(prompt).ids
        if not ids:
            raise DataError(f"prompt {place + 1} has no tokens, got {prompt!r}: write something to begin with")
        return ids

    def _room(self, rows: list[list[int]]) -> int:
        """Tokens that may be added to each prompt."""
        if self.model.positions is None:
            return sys.maxsize
        positions, longest = self.model.options["max_length"], max(map(len, rows), default=0)
        if longest > positions:
            raise DataError(f"a prompt may have {positions} tokens with this model, got {longest}: shorten it")
        return int(positions + 1 - longest)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens."""
        if isinstance(self.tokenizer, Vocabulary):
            return self.tokenizer.decode(ids)
        text: str = self.tokenizer.decode(list(ids))
        return text

    def ends(self, id_: int) -> bool:
        """Whether a token ends a text."""
        return id_ < 0 or id_ in self.model.stop or (isinstance(self.tokenizer, Vocabulary) and id_ == Vocabulary.EOS)


class _Text:
    """What follows one prompt: tokens in, whole characters out.

    Tokens are decoded together with some that came before, since a decoder leaves out the space before the first.
    """

    def __init__(self, writer: Writer, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._writer, self._stop = writer, stop
        self._ids, self._first, self._told = list(prompt), 0, len(prompt)
        self._held = ""  # decoded, but perhaps the begin of a stop text
        self.ended = False

    def add(self, id_: int) -> str:
        """What can be told after one more token."""
        if self.ended:
            return ""
        if self._writer.ends(id_):
            self.ended = True
            return ""
        self._ids.append(id_)
        decode = self._writer.decode
        before, text = decode(self._ids[self._first : self._told]), decode(self._ids[self._first :])
        if text.endswith(UNFINISHED):
            return ""
        self._first, self._told = self._told, len(self._ids)
        return self._until_stop(text[len(before) :])

    def rest(self) -> str:
        """What was held back."""
        before = self._writer.decode(self._ids[self._first : self._told])
        piece = "" if self.ended and not self._held else self._writer.decode(self._ids[self._first :])[len(before) :]
        told = self._until_stop(piece) + self._held
        self._held = ""
        return told

    def _until_stop(self, piece: str) -> str:
        text = self._held + piece
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            self._held, self.ended = "", True
            return text[: min(found)]
        longest = max((n for end in self._stop for n in range(1, len(end)) if text.endswith(end[:n])), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]
