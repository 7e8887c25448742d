"""Pairs of texts, from a file or a generator to batches of ids."""

from .batches import Ids, batches_by_length
from .dataset import IGNORE, Batch, PairDataset, pad
from .dates import generate_dates
from .errors import DataError
from .pairs import read_pairs
from .split import Split, split_pairs
from .subwords import SubwordVocabulary
from .texts import TextDataset, read_text, split_text
from .vocabulary import Normalize, Unit, Vocabulary, normalized

__all__ = [
    "IGNORE",
    "Batch",
    "DataError",
    "Ids",
    "Normalize",
    "PairDataset",
    "Split",
    "SubwordVocabulary",
    "TextDataset",
    "Unit",
    "Vocabulary",
    "batches_by_length",
    "generate_dates",
    "normalized",
    "pad",
    "read_pairs",
    "read_text",
    "split_pairs",
    "split_text",
]
