"""The drop-in in a running interpreter: a notebook, or Python's own prompt."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from ._serve import UsageError, is_checkout, serve

_session: Session | None = None


class Session:
    """What `use` has switched on; as a context manager it is switched off at the end.

    Attributes
    ----------
    checkout : Path or None
        Where modules come from that this library does not stand in for.
    warning : str
        What the user should know, or nothing.
    """

    def __init__(self, checkout: Path | None, keep: Collection[str]) -> None:
        self.checkout = checkout
        self._finder, self.warning = serve(checkout, keep, "`keep`")
        self._path = None
        if checkout is not None and str(checkout) not in sys.path:
            self._path = str(checkout)
            sys.path.append(self._path)  # last, as the book's scripts do it

    @property
    def active(self) -> bool:
        """Whether this is what is served now."""
        return self._finder in sys.meta_path

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Switch off: the next import of `common` finds what there is without the drop-in."""
        if not self.active:
            return
        sys.meta_path.remove(self._finder)
        for name in self._finder.found:
            sys.modules.pop(name, None)
            package, _, _ = name.rpartition(".")
            sys.modules.pop(package, None)  # it has the module as its attribute
        if self._path in sys.path:
            sys.path.remove(self._path)

    def __repr__(self) -> str:
        if not self.active:
            return "attnlayers.book: switched off"
        from attnbackends import backend

        from ._imports import SERVED

        served = sorted(set(SERVED) - self._finder.keep)
        names = ", ".join(name.removeprefix("common.") for name in served if name.startswith("common."))
        others = "".join(f", {name}" for name in served if not name.startswith("common."))
        rest = f"all else from {self.checkout}" if self.checkout else "without a checkout"
        warned = f"\nattnlayers.book: warning: {self.warning}" if self.warning else ""
        return f"attnlayers.book: serves common.({names}){others} on {backend.name}, {rest}{warned}"


def use(checkout: str | os.PathLike[str] | None = None, *, keep: Collection[str] = ()) -> Session:
    """Let `common.*` and ``ch08.attention_layer`` of the book be this library, from the next import on.

    Parameters
    ----------
    checkout : path, optional
        A checkout of the book's code, for all that this library does not stand in for. Default: the current folder or
        the one above it, where one of them is a checkout; otherwise none is needed.
    keep : collection of str
        Modules that stay the checkout's own, as in ``["common.util"]``.

    Returns
    -------
    Session
        Says what it serves; ``stop`` switches it off, and so does the end of a ``with`` block. A second `use` takes
        the place of the first.

    Raises
    ------
    ValueError
        For a checkout that is none.
    RuntimeError
        Where `common` was imported before, or the backend cannot be had.

    Examples
    --------
    >>> import attnlayers.book
    >>> with attnlayers.book.use():
    ...     from common.layers import Softmax
    >>> Softmax.__module__
    'attnlayers.book.layers'
    """
    global _session
    folder = _checkout(checkout)
    if keep and folder is None:
        raise ValueError(f"`keep` leaves modules as a checkout has them, got {', '.join(keep)} and no checkout")
    stop()
    _refuse_loaded()
    try:
        _session = Session(folder, keep)
    except UsageError as error:
        raise RuntimeError(str(error)) from None
    return _session


def stop() -> None:
    """Switch off what `use` has switched on, if anything."""
    global _session
    if _session is not None:
        _session.stop()
    _session = None


def _checkout(given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None:
        folder = Path(given).resolve()
        if not is_checkout(folder):
            raise ValueError(f"`checkout` must be a folder with the book's common/np.py, got {folder}")
        return folder
    here = Path.cwd().resolve()
    return next((folder for folder in (here, here.parent) if is_checkout(folder)), None)


def _refuse_loaded() -> None:
    """Names that were imported before would stay what they are, and two kinds of layers would be mixed."""
    from ._imports import SERVED

    for name in ("common", *SERVED):
        if name in sys.modules:
            where = getattr(sys.modules[name], "__file__", None) or "a folder without __init__.py"
            raise RuntimeError(
                f"{name} was imported before, from {where}: restart Python, and use attnlayers.book before `common`"
            )


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext attnlayers.book``."""
    from IPython.core.error import UsageError as OneLine

    from ._imports import INT, forgiving_int, mend_ints

    try:
        session = use()
    except (RuntimeError, ValueError) as error:
        raise OneLine(f"attnlayers.book: {error}") from None
    shell.ast_transformers.append(mend_ints)
    shell.user_ns[INT] = forgiving_int
    shell.user_ns_hidden[INT] = forgiving_int
    print(f"{session}; %unload_ext attnlayers.book switches it off")


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext attnlayers.book``."""
    from ._imports import INT, mend_ints

    stop()
    shell.ast_transformers.remove(mend_ints)
    shell.user_ns.pop(INT, None)
    shell.user_ns_hidden.pop(INT, None)
