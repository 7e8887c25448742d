"""What a run is started with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from math import cos, pi
from typing import Any, Self, get_args

from ..data import (
    Ids,
    Normalize,
    PairDataset,
    Split,
    SubwordVocabulary,
    TextDataset,
    Unit,
    Vocabulary,
    generate_dates,
    normalized,
    read_pairs,
    read_text,
    split_pairs,
    split_text,
)
from ..models import AttentionSeq2seq, CausalLM, Transformer, Translator
from .files import RunError
from .language import TextModel

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "seq2seq": {},
    "transformer": {"embedding_size": 128, "warmup": 200},
    "lm": {"embedding_size": 128, "warmup": 200, "reverse": False, "batch_size": 32},
}
"""The networks that can be trained, and where their defaults differ from those of `Settings`."""

UNITS: dict[str, dict[str, Any]] = {"character": {}, "word": {"min_count": 2}, "subword": {}}
"""What a token may be, and where defaults differ: words that occur once teach the model what ``<unk>`` is."""

BELONGS = {
    "attention": ("architecture", ("seq2seq",)),
    "heads": ("architecture", ("transformer", "lm")),
    "depth": ("architecture", ("transformer", "lm")),
    "context": ("architecture", ("lm",)),
    "columns": ("architecture", ("seq2seq", "transformer")),
    "split": ("architecture", ("seq2seq", "transformer")),
    "max_length": ("architecture", ("seq2seq", "transformer")),
    "reverse": ("architecture", ("seq2seq", "transformer")),
    "label_smoothing": ("architecture", ("seq2seq", "transformer")),
    "min_count": ("unit", ("character", "word")),
    "vocab_size": ("unit", ("subword",)),
}
"""Settings that mean something with some choices of another setting only."""

VERSION_1: dict[str, Any] = {
    "architecture": "seq2seq", "attention": "dot", "heads": 4, "depth": 2, "warmup": 0,
    "columns": "", "normalize": "none", "split": "book", "max_length": 0, "min_count": 1, "vocab_size": 8000,
    "schedule": "constant", "dropout": 0.0, "label_smoothing": 0.0, "weight_decay": 0.0, "patience": 0,
    "context": 128,
}  # fmt: skip
"""What a run was begun with whose config.json, written by version 0.1, lacks a setting."""

RENAMED = {"wordvec": "embedding_size", "hidden": "hidden_size"}
"""What settings were called in a config.json that version 0.1 wrote."""

CHOICES: dict[str, Collection[str]] = {
    "unit": get_args(Unit),
    "architecture": tuple(ARCHITECTURES),
    "attention": ("dot", "general", "additive"),
    "normalize": get_args(Normalize),
    "split": get_args(Split),
    "schedule": ("constant", "cosine"),
}
POSITIVE = (
    "epochs",
    "batch_size",
    "embedding_size",
    "hidden_size",
    "lr",
    "max_grad_norm",
    "heads",
    "depth",
    "min_count",
    "context",
)
NOT_NEGATIVE = ("seed", "warmup", "max_length", "weight_decay", "patience")
SHARES = ("dropout", "label_smoothing")


def option(name: str) -> str:
    """A setting as it is typed."""
    return "the data" if name == "data" else f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Settings:
    """What a run was started with.

    Attributes
    ----------
    data : str
        ``"dates"``, or the path of a file that `attnlayers.data.read_pairs` reads.
    columns : str
        Which columns of the file, as in ``"1,2"``; empty where it has two.
    normalize : {"NFC", "NFKC", "none"}
        The normal form of Unicode that texts are brought into.
    split : {"source", "book"}
        How pairs are held out, as in `attnlayers.data.split_pairs`.
    max_length : int
        Pairs with a text of more tokens are left out; 0 leaves out none.
    unit : {"character", "word", "subword"}
        What a token is.
    min_count : int
        Words or characters that occur less often become ``<unk>``.
    vocab_size : int
        Subwords at most.
    epochs, batch_size, embedding_size, hidden_size, seed : int
    lr, max_grad_norm : float
    reverse : bool
        Whether sources are read backwards.
    architecture : {"seq2seq", "transformer", "lm"}
        `AttentionSeq2seq`, `Transformer` or `CausalLM`, which learns from plain text. In the last two, `embedding_size`
        is the size of a token's vector in all layers, and `hidden_size` the size within feed-forward networks.
    attention : {"dot", "general", "additive"}
        How seq2seq compares states.
    heads, depth : int
        Attention heads of a transformer or an lm, and layers of the lm, or of encoder and of decoder.
    context : int
        Tokens that an lm sees at once.
    dropout, label_smoothing : float
        As in the models.
    weight_decay : float
        As in `AdamW`.
    schedule : {"constant", "cosine"}
        What the learning rate does after it has risen: stay, or fall to 0 at the end of the last epoch.
    warmup : int
        Steps over which the learning rate rises to `lr`.
    patience : int
        Epochs without a lower held-out loss after which training stops; 0 never stops.
    """

    data: str = "dates"
    columns: str = ""
    normalize: Normalize = "NFC"
    split: Split = "source"
    max_length: int = 0
    unit: Unit = "character"
    min_count: int = 1
    vocab_size: int = 8000
    epochs: int = 4
    batch_size: int = 128
    embedding_size: int = 16
    hidden_size: int = 256
    lr: float = 0.001
    max_grad_norm: float = 5.0
    reverse: bool = True
    seed: int = 1984
    architecture: str = "seq2seq"
    attention: str = "dot"
    heads: int = 4
    depth: int = 2
    context: int = 128
    dropout: float = 0.0
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    patience: int = 0

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Settings with the defaults of their model and tokens.

        Raises
        ------
        RunError
            If a setting that is given means nothing with the others.
        """
        defaults = ARCHITECTURES.get(given.get("architecture", "seq2seq"), {})
        defaults = defaults | UNITS.get(given.get("unit", "character"), {})
        settings = cls(**(defaults | given))
        settings.check_given(given)
        return settings

    def check_given(self, names: Collection[str]) -> None:
        """Refuse settings that mean nothing here, for those who were at pains to give them."""
        for name in names:
            other, choices = BELONGS.get(name, ("", ()))
            if other and getattr(self, other) not in choices:
                raise RunError(
                    f"{option(name)} belongs to {option(other)} {' or '.join(choices)}, got {getattr(self, other)}: "
                    "leave it out"
                )
        if "columns" in names and self.data == "dates":
            raise RunError("--columns belongs to data in a file, got dates: leave it out")

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            # A whole number may stand for a float; a bool is an int to Python, and never meant as one.
            fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (
                kind is bool
            )
            if not fits and value == value:  # NaN is no number of any kind: it is refused by its value below
                raise RunError(f"{option(field.name)} must be of type {kind.__name__}, got {value!r}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RunError(f"{option(name)} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise RunError(f"{option(name)} must be positive, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise RunError(f"{option(name)} must be 0 or more, got {getattr(self, name)}")
        for name in SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise RunError(f"{option(name)} must lie in [0, 1), got {getattr(self, name)}")
        if self.architecture == "lm":
            if self.data == "dates":
                raise RunError("--architecture lm learns from plain text: give a file of it")
            if self.unit == "word":
                raise RunError("--unit must be character or subword for --architecture lm: words forget white space")
            if self.embedding_size % (2 * self.heads):
                raise RunError(
                    f"--embedding-size must be a multiple of two times --heads, got {self.embedding_size} and "
                    f"{self.heads}: features are turned in pairs"
                )
        if self.architecture == "transformer" and self.embedding_size % self.heads:
            raise RunError(
                f"--embedding-size must be a multiple of --heads, got {self.embedding_size} and {self.heads}"
            )
        self._columns()

    def _columns(self) -> tuple[int, int] | None:
        if not self.columns:
            return None
        try:
            source, target = map(int, self.columns.split(","))
            if min(source, target) < 1 or source == target:
                raise ValueError
        except ValueError:
            raise RunError(
                f"--columns must be two different numbers from 1 on, as in 1,2, got {self.columns}"
            ) from None
        return source, target

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of the run, those that are held out included; of plain text the lines, with an empty source."""
        if self.architecture == "lm":
            return [("", normalized(line, self.normalize)) for line in read_text(self.data)]
        pairs = generate_dates(seed=self.seed) if self.data == "dates" else read_pairs(self.data, self._columns())
        return [(normalized(source, self.normalize), normalized(target, self.normalize)) for source, target in pairs]

    def split_pairs(self, pairs: Sequence[tuple[str, str]]) -> tuple[Ids, Ids]:
        """Places of the pairs to learn from, and of those that are held out."""
        if self.architecture == "lm":
            return split_text(pairs)
        return split_pairs(pairs, seed=self.seed, by=self.split)

    def vocabulary(self, pairs: Sequence[tuple[str, str]]) -> Vocabulary:
        """The tokens of the pairs to learn from."""
        train, _ = self.split_pairs(pairs)
        known = [pairs[place] for place in sorted(train)]
        if self.unit == "subword":
            byte_level = self.architecture == "lm"
            return SubwordVocabulary.train(known, self.vocab_size, self.normalize, byte_level=byte_level)
        return Vocabulary.from_pairs(known, self.unit, min_count=self.min_count, unknown=True, normalize=self.normalize)

    @property
    def free_text(self) -> bool:
        """Whether an answer can be good without being the one expected."""
        return self.data != "dates"

    def dataset(self, pairs: Sequence[tuple[str, str]], vocabulary: Vocabulary) -> PairDataset | TextDataset:
        """The pairs, or the text, as batches are taken from it."""
        if self.architecture == "lm":
            return TextDataset([line for _, line in pairs], vocabulary, self.context)
        return PairDataset(pairs, vocabulary, reverse=self.reverse)

    def model(self, vocabulary: Vocabulary) -> Translator | TextModel:
        """The model as it is before training."""
        if self.architecture == "lm":
            sizes = self.embedding_size, self.heads, self.hidden_size, self.depth
            # With rotary positions and a window, a text may grow far beyond what was seen in training.
            further: Any = {
                "positions": "rotary", "window": self.context, "max_length": self.context, "norm": "rms",
                "activation": "swiglu", "attention_bias": "none", "feed_forward_bias": False,
                "dropout": self.dropout, "seed": self.seed,
            }  # fmt: skip
            return TextModel(CausalLM(len(vocabulary), *sizes, **further))
        options: Any = {"dropout": self.dropout, "label_smoothing": self.label_smoothing, "seed": self.seed}
        V = len(vocabulary)
        if self.architecture == "transformer":
            return Transformer(V, self.embedding_size, self.heads, self.hidden_size, self.depth, **options)
        return AttentionSeq2seq(V, self.embedding_size, self.hidden_size, attention=self.attention, **options)

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of so many."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + cos(pi * (step - self.warmup) / max(1, steps - self.warmup))) / 2
