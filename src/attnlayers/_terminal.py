"""What may be sent to a terminal."""

from unicodedata import category


def printable(text: str) -> str:
    """The text with control characters escaped: in a terminal they would move the cursor, or worse. A tab stays."""
    return "".join(c.encode("unicode_escape").decode("ascii") if category(c) == "Cc" and c != "\t" else c for c in text)
