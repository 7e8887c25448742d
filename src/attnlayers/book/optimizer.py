"""The optimizers of the book's ``common.optimizer``: the library's."""

import sys

from ..training.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from .np import GPU, np

__all__ = ["GPU", "SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np", "sys"]
