"""The filter `features`: the feature that a seed asks for, how strongly its sample shows it, and samples that lack it dropped."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import RunFailed
from core.project_files import find_referenced_file
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument, Filter
from plugins.features.config import list_dictionary_files
from plugins.features.feature_dictionary import open_dictionary, open_feature_reader

if TYPE_CHECKING:
    from agents.planning.seeds import RunSeeds
    from plugins.features.dictionaries.dictionary_files import FeatureDictionary
    from plugins.features.dictionaries.document_features import FeatureReader

FEATURE_KEY = "feature"
"""The key of a seed with the feature that a sample is to show."""
MAX_REPORTED_SEEDS = 10
SHOWN_CHARACTERS_OF_FAULT = 80


class SeedFeature(BaseModel):
    """What a seed has under `FEATURE_KEY`."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: int = Field(ge=0)
    """The latent."""
    threshold: float = Field(gt=0, allow_inf_nan=False)
    """From this activation on it is present."""
    dictionary: str
    """The digest of the dictionary."""


class RequestedFeature(NamedTuple):
    """The feature that a document's seed asks for."""

    feature: int
    activation: float
    """The largest in the document."""
    threshold: float
    """From this activation on it is present."""


def list_seed_faults(seeds: "RunSeeds", folder: Path) -> list[str]:
    """The seeds that ask for no feature of the dictionary in `folder`, before a sample is paid.

    Raises:
        UsageError: if the dictionary cannot be opened.
    """
    return list(islice(_find_faults(seeds, open_dictionary(folder), folder), MAX_REPORTED_SEEDS))


def _find_faults(seeds: "RunSeeds", dictionary: "FeatureDictionary", folder: Path) -> Iterator[str]:
    for where, wanted in seeds.list_column(FEATURE_KEY):
        try:
            _read_seed_feature(wanted, dictionary, folder)
        except ValueError as error:
            yield f"{where}: {error}"


def _read_seed_feature(wanted: object, dictionary: "FeatureDictionary", folder: Path) -> SeedFeature | None:
    """What a seed asks for; None if it asks for nothing. `folder` is the dictionary's.

    Raises:
        ValueError: if it is no feature, or one of another dictionary.
    """
    if wanted is None:
        return None
    try:
        feature = SeedFeature.model_validate(wanted)
        if feature.dictionary == dictionary.digest and feature.id >= dictionary.autoencoder.latents:
            raise ValueError(f"id: the dictionary has {dictionary.autoencoder.latents:,} latents")
    except ValueError as error:
        raise ValueError(
            f"the seed's `{FEATURE_KEY}` is {_shorten(repr(wanted))}, not one that `stillhouse feature-gaps` wrote "
            f"({_describe_fault(error)}); rename that column of the seeds, or leave out the filter `features`"
        ) from None
    if feature.dictionary != dictionary.digest:
        raise ValueError(
            f"the seed's feature is of another dictionary than {folder}, {_shorten(repr(feature.dictionary))}; name the one "
            "that made the seeds (filters.dictionary)"
        )
    return feature


def _describe_fault(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else "it must be an object"


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_OF_FAULT else f"{text[:SHOWN_CHARACTERS_OF_FAULT]}…"


class RequestedFeatureMeter:
    """Reads samples with a dictionary, which is opened when the first seed asks for a feature."""

    def __init__(self, dictionary: Path) -> None:
        self._dictionary = dictionary
        self._reader: FeatureReader | None = None

    def measure(self, row: Mapping[str, Any], document: Document) -> RequestedFeature | None:
        """The activation of the feature that a sample's seed asks for; None if it asks for none.

        Raises:
            UsageError: if the dictionary cannot be opened.
            RunFailed: if the seed's feature is of another dictionary, or no feature.
        """
        wanted = json.loads(row["seed"])["data"].get(FEATURE_KEY)
        if wanted is None:
            return None
        self._reader = self._reader or open_feature_reader(self._dictionary)
        try:
            feature = _read_seed_feature(wanted, self._reader.dictionary, self._dictionary)
        except ValueError as error:
            raise RunFailed(f"{document.id}: {error}") from None
        assert feature is not None
        pooled = self._reader.pool(self._reader.encode([document.text])).learned
        found = pooled.values[pooled.latents == feature.id]
        activation = float(found[0]) if found.size else 0.0
        return RequestedFeature(feature.id, activation, feature.threshold)


class FeaturesFilter(Filter):
    about = "removes samples that lack the feature that their seed asks for"
    modules = ("safetensors", "torch", "transformers")
    type: Literal["features"]
    dictionary: str
    """That of `stillhouse feature-gaps`. A sample whose seed asks for no feature passes."""

    def list_files(self) -> Sequence[str]:
        return list_dictionary_files(self.dictionary)

    def open_meter(self, folder: Path) -> Callable[[Mapping[str, Any], Document], Document]:
        meter = RequestedFeatureMeter(find_referenced_file(self.dictionary, folder))

        def measure(row: Mapping[str, Any], document: Document) -> Document:
            requested = meter.measure(row, document)
            return document._replace(measured={**document.measured, self.type: requested}) if requested else document

        return measure

    def apply(self, documents: Sequence[Document], folder: Path) -> Sequence[DroppedDocument]:
        drops = []
        for document in documents:
            wanted: RequestedFeature | None = document.measured.get(self.type)
            if wanted and wanted.activation < wanted.threshold:
                detail = f"feature {wanted.feature} reaches {wanted.activation:.3g}, of {wanted.threshold:.3g} that are needed"
                drops.append(self.drop(document, detail, reason=RejectionReason.uncovered, score=wanted.activation))
        return drops
