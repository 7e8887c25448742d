"""Tokens and their ids."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeGuard, get_args

from .errors import DataError, quote

__all__ = ["Normalize", "Unit", "Vocabulary", "normalized"]

Unit = Literal["character", "word", "subword"]
Normalize = Literal["NFC", "NFKC", "none"]


def normalized(text: str, form: Normalize) -> str:
    """`text` in a normal form of Unicode: an é is one character, however it was typed."""
    return text if form == "none" else unicodedata.normalize(form, text)


class Vocabulary:
    """The tokens a model knows; a token's id is its place among them.

    Ids 0, 1 and 2 are padding, begin and end of a sequence in every vocabulary, and no text
    encodes to them. An open vocabulary has ``<unk>`` as id 3, to which every other token encodes; a closed one refuses
    other tokens. The tokens of the texts follow. A vocabulary never changes.

    Parameters
    ----------
    tokens : sequence of str
        The tokens of the texts, without the special ones: single characters, or words
        without white space.
    unit : {"character", "word"}
        What a text is split into. Words are what white space separates. For subwords see `SubwordVocabulary`.
    unknown : bool
        Whether the vocabulary is open.
    normalize : {"none", "NFC", "NFKC"}
        The form that texts are brought into before they are split.

    Raises
    ------
    ValueError
        Where `unit` or `normalize` is none of these.
    DataError
        Where a token occurs twice, is not one unit long or has the name of a special token.
    """

    PAD: ClassVar[int] = 0
    BOS: ClassVar[int] = 1
    EOS: ClassVar[int] = 2
    UNK: ClassVar[int] = 3
    SPECIAL: ClassVar[tuple[str, ...]] = ("<pad>", "<bos>", "<eos>", "<unk>")

    __slots__ = ("_ids", "_normalize", "_special", "_tokens", "_unit")

    def __init__(
        self, tokens: Sequence[str], unit: Unit, *, unknown: bool = False, normalize: Normalize = "none"
    ) -> None:
        if unit not in ("character", "word"):
            raise ValueError(f"`unit` must be 'character' or 'word', got {unit!r}")
        self._set(unit, normalize, self.SPECIAL if unknown else self.SPECIAL[:-1], tokens)
        for token in self._ids:
            if token in self._special:
                raise DataError(f"{token!r} is the name of a special token; write the texts without it")
            if self.tokens(token) != [token]:
                raise DataError(f"expected a token of one {unit}, got {quote(token)}")
        if len(self._ids) != len(tokens):
            twice, _ = Counter(tokens).most_common(1)[0]
            raise DataError(f"{quote(twice)} occurs more than once; give each token once")

    def _set(self, unit: Unit, normalize: Normalize, special: tuple[str, ...], tokens: Sequence[str]) -> None:
        if normalize not in get_args(Normalize):
            raise ValueError(f"`normalize` must be one of {', '.join(get_args(Normalize))}, got {normalize!r}")
        self._unit: Unit = unit
        self._normalize: Normalize = normalize
        self._special = special
        self._tokens = (*special, *tokens)
        self._ids = {token: index for index, token in enumerate(tokens, start=len(special))}

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, str]],
        unit: Unit,
        *,
        min_count: int = 1,
        unknown: bool = False,
        normalize: Normalize = "none",
    ) -> Vocabulary:
        """The tokens of all sources and targets, in the order of their first occurrence.

        Parameters
        ----------
        pairs, unit, unknown, normalize
            As in the class. In an open vocabulary, a token with the name of a special one is one of the unknown.
        min_count : int
            Tokens that occur less often are left out.

        Raises
        ------
        DataError
            Where `min_count` leaves nothing.
        """
        split = cls((), unit, unknown=unknown, normalize=normalize).tokens
        counts = Counter(token for pair in pairs for text in pair for token in split(text))
        names = cls.SPECIAL if unknown else ()
        tokens = [token for token, count in counts.items() if count >= min_count and token not in names]
        if counts and not tokens:
            most = max(counts.values())
            raise DataError(
                f"no {unit} occurs {min_count} times or more, so that --min-count {min_count} leaves nothing: "
                f"give --min-count {most} or less"
            )
        return cls(tokens, unit, unknown=unknown, normalize=normalize)

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
                unknown, form = rest.pop("unknown", False), rest.pop("normalize", "none")  # version 0.1 had neither
                texts = all(isinstance(token, str) for token in tokens)
                if isinstance(unknown, bool) and _is_form(form) and texts and not rest:
                    return cls(tokens, unit, unknown=unknown, normalize=form)
            case {"unit": "subword", "normalize": form, "tokenizer": {**tokenizer}, **rest} if not rest:
                if _is_form(form):
                    from .subwords import SubwordVocabulary

                    return SubwordVocabulary(json.dumps(tokenizer), form)
        raise DataError(
            'expected a vocabulary {"unit": "character" or "word", "tokens": [strings]}, '
            f"got {quote(text)}; write it with `Vocabulary.to_json`"
        )

    def to_json(self) -> str:
        """The vocabulary as one line of ASCII JSON, for `from_json`."""
        return json.dumps(self._content())

    def _content(self) -> dict[str, Any]:
        options: dict[str, Any] = {"unknown": len(self._special) == len(self.SPECIAL), "normalize": self._normalize}
        return {"unit": self._unit, **options, "tokens": self._tokens[len(self._special) :]}

    @property
    def unit(self) -> Unit:
        """What a text is split into."""
        return self._unit

    def tokens(self, text: str) -> list[str]:
        """`text` in its normal form, split into units, known or not."""
        text = normalized(text, self._normalize)
        return list(text) if self._unit == "character" else text.split()

    def encode(self, text: str) -> list[int]:
        """The ids of the tokens of `text`, without begin and end.

        Raises
        ------
        DataError
            Where a token is not in a closed vocabulary; the message names each and where it stands.
        """
        tokens = self.tokens(text)
        if len(self._special) > self.UNK:
            return [self._ids.get(token, self.UNK) for token in tokens]
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
        return self._joined(tokens)

    def _joined(self, tokens: list[str]) -> str:
        return ("" if self._unit == "character" else " ").join(tokens)

    def names(self, ids: Iterable[int]) -> list[str]:
        """One printable name for each id, special tokens included, as on the axes of a plot.

        A space becomes ``␣``; other characters without a glyph are escaped (``\\n``).
        """
        return ["␣" if token == " " else _printable(token) for token in map(self._token, ids)]

    def __len__(self) -> int:
        """How many ids there are, the special ones included."""
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash((self._unit, self._normalize, self._tokens))

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


def _is_form(value: Any) -> TypeGuard[Normalize]:
    return value in get_args(Normalize)


def _printable(token: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in token)
