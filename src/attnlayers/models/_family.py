"""A family of language models that others train: what is known of it, and its configuration as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..layers import LayerNorm, RMSNorm
from ._stored import Stored, WeightsError


@dataclass(frozen=True)
class Family:
    """What is known of a family.

    Attributes
    ----------
    options : callable
        From a configuration, out of which it takes what it knows, to the options of `CausalLM`.
    config : callable
        From these options to a configuration, or None where the family has no such model.
    stored : callable
        The arrays of a file, without the prefix that most files have.
    architecture : str
        What `transformers` calls the class.
    prefix : str
    """

    options: Callable[[Config], dict[str, Any]]
    config: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    stored: Callable[[Any], Iterator[Stored]]
    architecture: str
    prefix: str


class Config(dict[str, Any]):
    """A configuration, from which each entry is taken once; what is left is not known."""

    def size(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self.pop(name, None)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WeightsError(f"config.json must have a size {name!r} of 1 or more, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.pop(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise WeightsError(f"config.json must have a positive number {name!r}, got {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.pop(name, default)
        if not isinstance(value, bool):
            raise WeightsError(f"config.json must have true or false as {name!r}, got {value!r}")
        return value

    def one_of(self, name: str, known: Mapping[str, str], default: str) -> str:
        value = self.pop(name, default)
        if not isinstance(value, str) or value not in known:
            raise WeightsError(
                f"config.json has {name}={value!r}, which is not supported: known are {', '.join(known)}"
            )
        return known[value]

    def fixed(self, **values: Any) -> None:
        """Entries that must be what they are by default."""
        for name, value in values.items():
            got = self.pop(name, value)
            if got != value:
                raise WeightsError(f"config.json has {name}={got!r}, which is not supported: only {value!r} is")


def stored_norm(name: str, layer: LayerNorm | RMSNorm) -> Iterator[Stored]:
    """Gain and bias of a norm, under the names that all families have for them."""
    for kind, param in zip(("weight", "bias"), layer.params, strict=False):
        yield Stored(f"{name}.{kind}", (param,))
