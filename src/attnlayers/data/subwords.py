"""Subwords: byte-pair encoding by the library `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .errors import DataError, quote
from .vocabulary import Normalize, Vocabulary, normalized

__all__ = ["SubwordVocabulary"]

SPACE = "▁"
"""Stands for the space before a word, within its first token."""


class SubwordVocabulary(Vocabulary):
    """Pieces of words, from single characters to whole words, by how often they occur.

    It is open: a character that was never seen encodes to ``<unk>``.

    Parameters
    ----------
    tokenizer : str
        A model of the library `tokenizers`, as JSON.
    normalize : {"none", "NFC", "NFKC"}
        The form that texts are brought into before they are split.

    References
    ----------
    Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016.
    """

    __slots__ = ("_tokenizer",)

    def __init__(self, tokenizer: str, normalize: Normalize = "none") -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer)
        except Exception as error:  # what the library raises has no class of its own
            raise DataError(f"expected a model of the library tokenizers, got {quote(tokenizer)}: {error}") from None
        # Else "<eos>" in a text would end it.
        self._tokenizer.encode_special_tokens = True
        names = [str(self._tokenizer.id_to_token(index)) for index in range(self._tokenizer.get_vocab_size())]
        if tuple(names[: len(self.SPECIAL)]) != self.SPECIAL:
            raise DataError(f"the first tokens must be {', '.join(self.SPECIAL)}, got {', '.join(names[:4])}")
        self._set("subword", normalize, self.SPECIAL, names[len(self.SPECIAL) :])

    @classmethod
    def train(
        cls,
        pairs: Iterable[tuple[str, str]],
        vocab_size: int,
        normalize: Normalize = "none",
        *,
        byte_level: bool = False,
    ) -> SubwordVocabulary:
        """Find the subwords of all sources and targets.

        Parameters
        ----------
        pairs : iterable of (source, target)
        vocab_size : int
            Tokens at most, special ones and single characters included; fewer where the texts repeat little.
        normalize : {"none", "NFC", "NFKC"}
        byte_level : bool
            Begin with the 256 bytes of UTF-8 instead of characters, as GPT-2 does: white space comes back as it was,
            and nothing is unknown.

        Raises
        ------
        DataError
            Where the characters alone are more than `vocab_size`, or nothing occurs twice.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        texts = [normalized(text, normalize) for pair in pairs for text in pair]
        splitter: Any
        joiner: Any
        if byte_level:
            characters = set(pre_tokenizers.ByteLevel.alphabet())
            splitter, joiner = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        else:
            characters = {SPACE, *SPACE.join(texts).replace(" ", SPACE)}
            splitter, joiner = pre_tokenizers.Metaspace(replacement=SPACE), decoders.Metaspace(replacement=SPACE)
        least = len(cls.SPECIAL) + len(characters) + 1
        if vocab_size < least:
            what = "bytes" if byte_level else "different characters"
            raise DataError(f"--vocab-size must be {least} or more for {len(characters)} {what}, got {vocab_size}")
        tokenizer = Tokenizer(models.BPE(unk_token=cls.SPECIAL[cls.UNK]))
        tokenizer.pre_tokenizer, tokenizer.decoder = splitter, joiner
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[*cls.SPECIAL],
            show_progress=False,
            initial_alphabet=sorted(characters) if byte_level else [],
        )
        tokenizer.train_from_iterator(texts, trainer)
        if not json.loads(tokenizer.to_str())["model"]["merges"]:
            raise DataError(
                "these texts are too few for subwords: no two characters stand together twice; use --unit character"
            )
        return cls(tokenizer.to_str(), normalize)

    def tokens(self, text: str) -> list[str]:
        tokens: list[str] = self._tokenizer.encode(normalized(text, self._normalize)).tokens
        return tokens

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(normalized(text, self._normalize)).ids
        return ids

    def _joined(self, tokens: list[str]) -> str:
        text: str = self._tokenizer.decoder.decode(tokens)
        return text

    def _content(self) -> dict[str, Any]:
        return {
            "unit": self._unit, "normalize": self._normalize, "tokenizer": json.loads(self._tokenizer.to_str())
        }  # fmt: skip
