"""The error of this package, and how it quotes a text."""

from __future__ import annotations

__all__ = ["DataError", "quote"]


class DataError(ValueError):
    """A file or a text that cannot become training data: what was met, where, and what to do."""


def quote(text: str, limit: int = 60) -> str:
    """`text` in quotes and with escapes, cut after `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "…")
