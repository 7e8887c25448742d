"""Pairs of texts, from a file or a generator to batches of ids."""

from .dataset import IGNORE, Batch, PairDataset, pad
from .dates import generate_dates
from .errors import DataError
from .pairs import read_pairs
from .vocabulary import Unit, Vocabulary

__all__ = [
    "IGNORE",
    "Batch",
    "DataError",
    "PairDataset",
    "Unit",
    "Vocabulary",
    "generate_dates",
    "pad",
    "read_pairs",
]
