"""Serving the book's modules: what a script and a notebook have in common."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._imports import BookFinder


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to do."""


def is_checkout(folder: Path) -> bool:
    """Whether a folder holds the book's code."""
    return (folder / "common" / "np.py").is_file()


def serve(checkout: Path | None, keep: Collection[str], option: str = "--keep") -> tuple[BookFinder, str]:
    """From now on `common` and what belongs to it come from here.

    Parameters
    ----------
    checkout : Path, optional
        Of the book's code.
    keep : collection of str
        Book names of modules that are the checkout's own.
    option : str
        What `keep` is called where the user gives it.

    Returns
    -------
    finder : BookFinder
        Stands first in ``sys.meta_path``.
    warning : str
        What the user should know, or nothing.
    """
    # Not this package's `np`: a script may still set `config.GPU`.
    try:
        from attnbackends import backend
    except RuntimeError as error:  # the one that could not be imported: CUDA is asked for and cannot be had
        raise UsageError(str(error)) from None
    if backend.name not in ("numpy", "cupy"):
        raise UsageError(f"the book's code runs on NumPy or CuPy, not on {backend.name}: unset ATTN_BACKEND")
    from ._imports import SERVED, BookFinder, own_changes

    if unknown := set(keep) - set(SERVED):
        raise UsageError(f"{option} takes {', '.join(sorted(SERVED))}, got {', '.join(sorted(unknown))}")
    warning = ""
    if checkout is not None:
        kept = {name.replace(".", "/") + ".py" for name in keep}
        if changed := [name for name in own_changes(checkout) if name not in kept]:
            first = changed[0].removesuffix(".py").replace("/", ".")
            warning = (
                f"not the book's files, and not used: {', '.join(changed)}; {option} {first} uses the checkout's own"
            )
    finder = BookFinder(checkout, set(keep))
    sys.meta_path.insert(0, finder)
    return finder, warning
