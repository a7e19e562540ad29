"""The filter `features`: drops samples that lack the feature that their seed asks for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core.project_files import find_referenced_file
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument, Filter
from plugins.features.config import list_dictionary_files
from plugins.features.requested_features import RequestedFeature, RequestedFeatureMeter


class FeaturesFilter(Filter):
    about = "removes samples that lack the feature that their seed asks for"
    modules = ("safetensors", "torch", "transformers")
    type: Literal["features"]
    dictionary: str
    """The folder of the feature dictionary by which `stillhouse feature-gaps` wrote the seeds. A sample whose seed asks for no
    feature passes."""

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
