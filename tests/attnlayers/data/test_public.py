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
    assert all(hasattr(attnlayers.data, name) for name in attnlayers.data.__all__)


def test_data_error_is_a_value_error() -> None:
    assert issubclass(attnlayers.data.DataError, ValueError)
