"""Attention weights as the page holds them: checked, on the host, in base64, and thinned where they are many."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnbackends import backend_of

MAX_TOKEN = 100
"""Characters of a token that are kept."""

SLACK = 1e-2
"""How far weights may exceed 1, and rows differ from 1 or 0, by rounding: eight bits of bfloat16, twice."""


@dataclass(frozen=True)
class Attention:
    """Weights and what they lie between.

    Attributes
    ----------
    name : str
    weights : float32 array (layers, heads, T_q, T_k)
    queries, keys : list of str
        T_q and T_k tokens.
    sides : (str, str)
        What queries and keys are called.
    """

    name: str
    weights: np.ndarray
    queries: list[str]
    keys: list[str]
    sides: tuple[str, str]

    @classmethod
    def of(cls, name: str, weights: Any, source: Any, target: Any = None) -> Attention:
        """Check what a user gave."""
        array = _on_host(weights)
        if not 2 <= array.ndim <= 4:
            further = ": take one entry of the batch, as in weights[0]" if array.ndim > 4 else ""
            raise ValueError(
                f"`weights` must have shape (T_q, T_k), (heads, T_q, T_k) or (layers, heads, T_q, T_k), "
                f"got {array.shape}{further}"
            )
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        if not array.size:
            raise ValueError(f"`weights` must not be empty, got shape {array.shape}")
        keys = _tokens("source", source, array.shape[3], "keys")
        if target is None and array.shape[2] != array.shape[3]:
            raise ValueError(
                f"`target` must be given where queries and keys are not the same tokens, got none for "
                f"{array.shape[2]} queries and {array.shape[3]} keys"
            )
        queries = keys if target is None else _tokens("target", target, array.shape[2], "queries")
        _check_probabilities(array)
        sides = ("token", "token") if target is None else ("target", "source")
        return cls(name, array, queries, keys, sides)

    def note(self) -> str:
        """What must be said of the weights, if anything."""
        sums = self.weights.sum(axis=-1, dtype=np.float64)
        odd = np.abs(sums - 1) > SLACK
        odd &= sums > 0  # nothing was visible there
        if not odd.any():
            return ""
        return f"Weights of a token sum to 1 elsewhere; here from {sums[odd].min():.4g} to {sums[odd].max():.4g}."

    def dense_bytes(self) -> int:
        return _base64_bytes(4 * self.weights.size)

    def thinned_bytes(self, kept: int) -> int:
        """Bytes in the page with `kept` weights of each query."""
        rows = self.weights[..., 0].size
        return _base64_bytes(4 * rows * kept) + _base64_bytes(self._place().itemsize * rows * kept)

    def _place(self) -> np.dtype[Any]:
        return np.dtype("<u2" if len(self.keys) <= 1 << 16 else "<u4")

    def words(self) -> dict[str, Any]:
        """All but the numbers, as the page reads it."""
        return {
            "name": self.name, "sides": self.sides, "note": self.note(), "queries": self.queries, "keys": self.keys,
        }  # fmt: skip

    def to_json(self, kept: int | None) -> dict[str, Any]:
        """What the page reads; `kept` weights of each query, or all."""
        layers, heads = self.weights.shape[:2]
        common = self.words() | {"layers": layers, "heads": heads}
        if kept is None or self.thinned_bytes(kept) >= self.dense_bytes():
            return common | {"kept": None, "values": _base64(self.weights.astype("<f4", copy=False))}
        places = _largest(self.weights, kept)
        values = np.take_along_axis(self.weights, places, axis=-1)
        return common | {
            "kept": kept,
            "wide": self._place().itemsize == 4,
            "values": _base64(values.astype("<f4", copy=False)),
            "places": _base64(places.astype(self._place())),
        }


def _on_host(weights: Any) -> np.ndarray:
    """As float32, from any library, or from lists of arrays."""
    if isinstance(weights, list | tuple):
        try:
            return np.stack([_on_host(part) for part in weights])
        except ValueError:
            raise ValueError("`weights` must be an array or lists of equal length, got lists that differ") from None
    if isinstance(weights, int | float | np.generic):
        array = np.asarray(weights)
    elif isinstance(weights, np.ndarray):
        array = weights
    elif hasattr(weights, "shape"):
        array = backend_of(weights=weights).to_numpy(weights)
    else:
        raise TypeError(f"`weights` must be an array of numbers, got {type(weights).__name__}")
    try:
        return np.asarray(array).astype(np.float32, copy=False)
    except (TypeError, ValueError):
        raise TypeError(f"`weights` must be an array of numbers, got dtype {array.dtype}") from None


def _tokens(name: str, tokens: Any, count: int, what: str) -> list[str]:
    """As a list of text; a string is its characters."""
    if not isinstance(tokens, str | Sequence) or isinstance(tokens, bytes):
        raise TypeError(f"`{name}` must be a list of tokens, got {type(tokens).__name__}")
    for token in tokens:
        if not isinstance(token, str | int | np.integer):
            raise TypeError(f"`{name}` must hold tokens as text, got {type(token).__name__}")
    texts = [str(token) for token in tokens]
    if len(texts) != count:
        raise ValueError(f"`{name}` must have {count} tokens, as many as `weights` has {what}, got {len(texts)}")
    return [text if len(text) <= MAX_TOKEN else text[: MAX_TOKEN - 1] + "…" for text in texts]


def _check_probabilities(array: np.ndarray) -> None:
    wrong = ~((array >= 0) & (array <= 1 + SLACK))  # NaN is neither
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"`weights` must be probabilities, from 0 to 1, got {array[place]:.4g} at (layer, head, query, key) = "
            f"{place}: give what softmax returned, not scores"
        )


def _largest(weights: np.ndarray, kept: int) -> np.ndarray:
    """Places (..., T_q, kept) of the largest weights of each query, ascending; one head at a time, to save memory."""
    out = np.empty((*weights.shape[:-1], kept), np.int64)
    for place in np.ndindex(weights.shape[:2]):
        found = np.argpartition(-weights[place], kept - 1, axis=-1)[:, :kept]
        out[place] = np.sort(found, axis=-1)
    return out


def _base64(array: np.ndarray) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _base64_bytes(count: int) -> int:
    return 4 * -(-count // 3)
