"""Optimizers, the trainer and the run folder it keeps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .files import RunError
    from .optimizers import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop, clip_grads
    from .progress import Progress
    from .run import Checkpoint, RunFolder
    from .settings import Settings
    from .trainer import Trainer

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Checkpoint",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "Progress",
    "RMSprop",
    "RunError",
    "RunFolder",
    "Settings",
    "Trainer",
    "clip_grads",
]

_HOMES = {"RunError": "files", "Settings": "settings"} | dict.fromkeys(("Checkpoint", "RunFolder"), "run")
_HOMES |= {"Progress": "progress", "Trainer": "trainer"}


def __getattr__(name: str) -> Any:
    """Load at the first use: optimizers need nothing that a run folder needs."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, 'optimizers')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
