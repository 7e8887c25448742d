"""Tokens and their ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import ClassVar, Literal, get_args

from .errors import DataError, quote

__all__ = ["Unit", "Vocabulary"]

Unit = Literal["character", "word"]


class Vocabulary:
    """The tokens a model knows; a token's id is its place among them.

    Ids 0, 1 and 2 are padding, begin and end of a sequence in every vocabulary, and no text
    encodes to them. The tokens of the texts follow from id 3 on. A vocabulary never changes.

    Parameters
    ----------
    tokens : sequence of str
        The tokens of the texts, without the three special ones: single characters, or words
        without white space.
    unit : {"character", "word"}
        What a text is split into. Words are what white space separates.

    Raises
    ------
    ValueError
        Where `unit` is none of the two.
    DataError
        Where a token occurs twice, is not one unit long or has the name of a special token.
    """

    PAD: ClassVar[int] = 0
    BOS: ClassVar[int] = 1
    EOS: ClassVar[int] = 2
    SPECIAL: ClassVar[tuple[str, str, str]] = ("<pad>", "<bos>", "<eos>")

    __slots__ = ("_ids", "_tokens", "_unit")

    def __init__(self, tokens: Sequence[str], unit: Unit) -> None:
        if unit not in get_args(Unit):
            raise ValueError(f"`unit` must be 'character' or 'word', got {unit!r}")
        self._unit: Unit = unit
        self._tokens = (*self.SPECIAL, *tokens)
        self._ids = {token: index for index, token in enumerate(tokens, start=len(self.SPECIAL))}
        for token in self._ids:
            if token in self.SPECIAL:
                raise DataError(f"{token!r} is the name of a special token; write the texts without it")
            if self.tokens(token) != [token]:
                raise DataError(f"expected a token of one {unit}, got {quote(token)}")
        if len(self._ids) != len(tokens):
            twice, _ = Counter(tokens).most_common(1)[0]
            raise DataError(f"{quote(twice)} occurs more than once; give each token once")

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]], unit: Unit) -> Vocabulary:
        """The tokens of all sources and targets, in the order of their first occurrence."""
        split = cls((), unit).tokens
        tokens = dict.fromkeys(token for text in chain.from_iterable(pairs) for token in split(text))
        return cls(tuple(tokens), unit)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises
        ------
        DataError
            Where `text` is not JSON, or not a vocabulary.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"expected a vocabulary as JSON, got {quote(text)}: {error}") from None
        match content:
            case {"unit": "character" | "word" as unit, "tokens": [*tokens], **rest}:
                if not rest and all(isinstance(token, str) for token in tokens):
                    return cls(tokens, unit)
        raise DataError(
            'expected a vocabulary {"unit": "character" or "word", "tokens": [strings]}, '
            f"got {quote(text)}; write it with `Vocabulary.to_json`"
        )

    def to_json(self) -> str:
        """The vocabulary as one line of ASCII JSON, for `from_json`."""
        return json.dumps({"unit": self._unit, "tokens": self._tokens[len(self.SPECIAL) :]})

    @property
    def unit(self) -> Unit:
        """What a text is split into."""
        return self._unit

    def tokens(self, text: str) -> list[str]:
        """`text` split into characters or words, known or not."""
        return list(text) if self._unit == "character" else text.split()

    def encode(self, text: str) -> list[int]:
        """The ids of the tokens of `text`, without begin and end.

        Raises
        ------
        DataError
            Where a token is not in the vocabulary; the message names each and where it stands.
        """
        tokens = self.tokens(text)
        try:
            return [self._ids[token] for token in tokens]
        except KeyError:
            raise DataError(self._describe_unknown(text, tokens)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first end of sequence; padding and begin are left out.

        Raises
        ------
        ValueError
            Where an id is not one of the vocabulary's.
        """
        tokens = []
        for index in ids:
            if index == self.EOS:
                break
            if index not in (self.PAD, self.BOS):
                tokens.append(self._token(index))
        return ("" if self._unit == "character" else " ").join(tokens)

    def names(self, ids: Iterable[int]) -> list[str]:
        """One printable name for each id, special tokens included, as on the axes of a plot.

        A space becomes ``␣``; other characters without a glyph are escaped (``\\n``).
        """
        return ["␣" if token == " " else _printable(token) for token in map(self._token, ids)]

    def __len__(self) -> int:
        """How many ids there are, the three special ones included."""
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self._unit, self._tokens) == (other._unit, other._tokens)

    def __hash__(self) -> int:
        return hash((self._unit, self._tokens))

    def __repr__(self) -> str:
        return f"<Vocabulary: {len(self)} tokens, unit {self._unit!r}>"

    def _token(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise ValueError(f"ids must lie in 0..{len(self) - 1} for {len(self)} tokens, got {index}")
        return self._tokens[index]

    def _describe_unknown(self, text: str, tokens: list[str]) -> str:
        places = {token: place for place, token in reversed([*enumerate(tokens, start=1)])}
        unknown = sorted(places.keys() - self._ids.keys(), key=places.__getitem__)
        named = ", ".join(f"{quote(token)} ({self._unit} {places[token]})" for token in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        are, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
        return (
            f"{named}{more} of {quote(text)} {are} not in the vocabulary of {len(self)} tokens; "
            f"train on data that holds {them} or write the text without {them}"
        )


def _printable(token: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in token)
