"""One model trained by several processes, on one host or many: data-parallel, over MPI."""

from typing import TYPE_CHECKING, Any

from ._errors import RanksError
from ._join import join

if TYPE_CHECKING:
    from ._ranks import Ranks

__all__ = ["Ranks", "RanksError", "join"]


def __getattr__(name: str) -> Any:
    """Load at the first use: `join` chooses the number of threads before the backend is loaded."""
    if name != "Ranks":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._ranks import Ranks

    return Ranks
