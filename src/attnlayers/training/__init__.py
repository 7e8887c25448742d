"""Optimizers, the trainer and the run folder it keeps."""

from .files import RunError
from .optimizers import SGD, AdaGrad, Adam, Momentum, Optimizer, clip_grads
from .run import Checkpoint, RunFolder, Settings
from .trainer import Progress, Trainer

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Checkpoint",
    "Momentum",
    "Optimizer",
    "Progress",
    "RunError",
    "RunFolder",
    "Settings",
    "Trainer",
    "clip_grads",
]
