"""Opening a feature dictionary, where the extra `train` is installed. Knows no torch until it is called."""

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UsageError
from core.installation import format_install_command

if TYPE_CHECKING:
    from plugins.features.dictionaries.dictionary_files import FeatureDictionary
    from plugins.features.dictionaries.document_features import FeatureReader


def open_dictionary(folder: Path) -> "FeatureDictionary":
    """Raises UsageError if it is no dictionary, or the extra `train` is missing."""
    try:
        from plugins.features.dictionaries.dictionary_files import load_dictionary
    except ModuleNotFoundError as error:
        raise describe_missing_train_extra(error) from None
    return load_dictionary(folder)


def open_feature_reader(folder: Path) -> "FeatureReader":
    """Raises UsageError as `open_dictionary`, and if the dictionary's model is missing or has changed."""
    dictionary = open_dictionary(folder)
    from plugins.features.dictionaries.document_features import FeatureReader

    return FeatureReader(dictionary)


def describe_missing_train_extra(error: ModuleNotFoundError) -> UsageError:
    return UsageError(
        f"features need the extra `train` ({error.name} is missing): run {format_install_command('train')}"
    )
