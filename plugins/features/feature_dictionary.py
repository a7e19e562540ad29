"""`stillhouse features`: a feature dictionary from text files and datasets; and opening one. Knows no torch until it is
called.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.loading import parse_settings
from core.errors import UsageError
from core.installation import format_install_command
from flows.rows.dataset_rows import read_dataset_documents
from flows.terminal.suggested_commands import format_command
from flows.terminal.text_format import format_count
from plugins.features.config import DictionarySettings

if TYPE_CHECKING:
    from plugins.features.dictionaries.dictionary_files import FeatureDictionary, TrainingRecord
    from plugins.features.dictionaries.document_features import FeatureReader


def open_dictionary(folder: Path) -> "FeatureDictionary":
    """Raises UsageError if it is no dictionary, or the extra `train` is missing."""
    try:
        from plugins.features.dictionaries.dictionary_files import load_dictionary
    except ModuleNotFoundError as error:
        raise _describe_missing_train_extra(error) from None
    return load_dictionary(folder)


def open_feature_reader(folder: Path) -> "FeatureReader":
    """Raises UsageError as `open_dictionary`, and if the dictionary's model is missing or has changed."""
    dictionary = open_dictionary(folder)
    from plugins.features.dictionaries.document_features import FeatureReader

    return FeatureReader(dictionary)


def _describe_missing_train_extra(error: ModuleNotFoundError) -> UsageError:
    return UsageError(
        f"features need the extra `train` ({error.name} is missing): run {format_install_command('train')}"
    )


GOOD_VARIANCE = 0.75
"""Explained variance that an autoencoder of the embedded teacher reaches in minutes on two cores (0.777 after 1.4 million visits
of 44,000 tokens, when a random dictionary has 0.27)."""
MOST_DEAD = 0.05


def make_dictionary(
    sources: Sequence[Path],
    out: Path,
    settings: Sequence[str],
    published: str | None,
    progress: Callable[[str], None],
) -> "TrainingRecord":
    """Train a dictionary, or take a published one, and write it to `out`.

    Raises:
        RecipeError: for a setting that does not exist.
        UsageError: if a text, a model or a published dictionary cannot be used, `out` exists, or the extra `train` is missing.
    """
    config = parse_settings(DictionarySettings, settings)
    if out.exists():
        raise UsageError(f"{out}: exists already; name another folder, or remove it")
    texts = [document.text for source in sources for document in read_dataset_documents(source)]
    try:
        from plugins.features.dictionaries.dictionary_building import build_dictionary
    except ModuleNotFoundError as error:
        raise _describe_missing_train_extra(error) from None
    return build_dictionary(texts, out, config, published, progress)


def format_training(record: "TrainingRecord", out: Path) -> str:
    """The output of `stillhouse features`."""
    lines = [
        f"dictionary {out}  {record.latents:,} latents, {record.k} active at a token, from "
        f"{format_count(record.tokens, 'token')} of {format_count(record.documents, 'document')}",
        f"  explained variance {record.explained_variance:.3f} on {record.held_out_tokens:,} held-out tokens; random dictionary "
        f"{record.random_explained_variance:.3f}",
        f"  dead features {record.dead_share:.1%}",
    ]
    if record.explained_variance < GOOD_VARIANCE or record.dead_share > MOST_DEAD:
        lines.append(
            f"  weak: {GOOD_VARIANCE} and at most {MOST_DEAD:.0%} dead are usual; use more text, tokens or epochs"
        )
    command = format_command("feature-gaps", "INPUT", "--reference", "REF", "--features", str(out))
    return "\n".join([*lines, f"hint: what a dataset lacks: {command}"])
