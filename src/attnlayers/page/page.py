"""One HTML file of attention weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from .weights import Attention

LARGEST = 5_000_000
"""Bytes of a page at most: what mail and chat still carry and a browser opens at once. Of more weights the largest."""


class Page:
    """An HTML page of attention weights, shown by a notebook as it is.

    Parameters
    ----------
    texts : sequence of (str, sequence of Attention)
        For each text its name and its attentions.
    title : str
    """

    def __init__(self, texts: Sequence[tuple[str, Sequence[Attention]]], title: str = "Attention") -> None:
        self.title = title
        own = [one for _, attentions in texts for one in attentions]
        words = _json([title, [name for name, _ in texts], [one.words() for one in own]])
        fixed = len(_template("").encode()) + len(words) + 200 * (len(own) + len(texts))  # and the names of fields
        kept = _how_many(own, LARGEST - fixed)
        data = {
            "title": title,
            "texts": [
                {"name": name, "attentions": [one.to_json(kept) for one in attentions]} for name, attentions in texts
            ],
        }
        self._html = _template(_json(data))

    def __str__(self) -> str:
        """The whole HTML document."""
        return self._html

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self._html.encode()):,} bytes of HTML; save(path) writes it to a file)"

    def save(self, path: str | Path) -> None:
        """Write the page to a file, whole or not at all."""
        from ..training.files import write_whole

        write_whole(Path(path), lambda part: part.write_text(self._html, encoding="utf-8"))

    def _repr_html_(self) -> str:
        """For notebooks: the page in a frame of its own, which shares nothing with the notebook."""
        return (
            '<iframe sandbox="allow-scripts" style="width: 100%; height: 640px; border: 0" '
            f'title="{escape(self.title)}" srcdoc="{escape(self._html)}"></iframe>'
        )


def view(weights: Any, source: Any = None, target: Any = None, *, title: str = "Attention") -> Page:
    """A page that shows attention weights between tokens, as lines and as a heat map.

    Parameters
    ----------
    weights : array (T_q, T_k), (heads, T_q, T_k) or (layers, heads, T_q, T_k), or a mapping
        Of any library: probabilities, row by row. A mapping holds several to choose from, by their names: arrays of
        the same tokens, or tuples ``(weights, source)`` and ``(weights, source, target)`` of their own.
    source : sequence of str
        The T_k tokens that are attended to; a string stands for its characters.
    target : sequence of str, optional
        The T_q tokens that attend. Default: the source itself, as in self-attention.
    title : str

    Returns
    -------
    Page
        ``save(path)`` writes it; a notebook shows it. At most 5 MB: of more weights each query keeps its largest, and
        the page says how many.

    Raises
    ------
    ValueError
        For weights that are not probabilities, lengths that do not fit, and weights that a page cannot hold.

    Examples
    --------
    >>> page = view([[0.9, 0.1], [0.2, 0.8]], ["ab", "cd"], ["AB", "CD"])
    >>> "<!DOCTYPE html>" in str(page)
    True
    """
    if not isinstance(weights, Mapping):
        return Page([("text", [Attention.of("attention", weights, _given(source), target)])], title)
    if not weights:
        raise ValueError("`weights` must hold one array or more, got an empty mapping")
    attentions = []
    for name, own in weights.items():
        try:
            one = own if _is_own(own) else (own, source, target)
            attentions.append(Attention.of(str(name), one[0], _given(one[1]), *one[2:]))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return Page([("text", attentions)], title)


def _is_own(entry: Any) -> bool:
    """Whether an entry of a mapping is a tuple of weights and tokens of its own."""
    if not isinstance(entry, tuple) or len(entry) not in (2, 3):
        return False
    tokens = entry[1]
    return isinstance(tokens, str) or (isinstance(tokens, Sequence) and all(isinstance(one, str) for one in tokens))


def _given(source: Any) -> Any:
    if source is None:
        raise TypeError("`source` must be a list of tokens, got none")
    return source


def _how_many(attentions: Sequence[Attention], room: int) -> int | None:
    """How many weights of each query fit; None for all."""

    def size(kept: int) -> int:
        return sum(min(one.dense_bytes(), one.thinned_bytes(min(kept, len(one.keys)))) for one in attentions)

    if sum(one.dense_bytes() for one in attentions) <= room:
        return None
    low, high = 0, max(len(one.keys) for one in attentions)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= room else (low, middle - 1)
    if low < 1:
        shapes = ", ".join(str(one.weights.shape) for one in attentions[:3])
        raise ValueError(
            f"`weights` must fit a page of {LARGEST / 1e6:g} MB with their tokens, got more than that even with one "
            f"weight for each query: pass some layers, heads or tokens of {shapes}"
        )
    return low


def _json(data: Any) -> str:
    """In ASCII, with nothing in it that could end a script."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _parts() -> tuple[str, str]:
    """What stands before and after the data."""
    folder = files(__package__)
    html, css, js = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    html = html.replace("{{css}}", css.strip()).replace("{{js}}", js.strip())
    before, after = html.split("{{data}}")
    return before, after


def _template(data: str) -> str:
    before, after = _parts()
    return before + data + after
