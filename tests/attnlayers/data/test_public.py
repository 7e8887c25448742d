"""The names of the package."""

import attnlayers.data


def test_public_names() -> None:
    assert attnlayers.data.__all__ == [
        "IGNORE",
        "Batch",
        "DataError",
        "Ids",
        "Normalize",
        "PairDataset",
        "Split",
        "SubwordVocabulary",
        "Unit",
        "Vocabulary",
        "batches_by_length",
        "generate_dates",
        "normalized",
        "pad",
        "read_pairs",
        "split_pairs",
    ]
    assert all(hasattr(attnlayers.data, name) for name in attnlayers.data.__all__)


def test_data_error_is_a_value_error() -> None:
    assert issubclass(attnlayers.data.DataError, ValueError)
