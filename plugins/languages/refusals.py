"""Drops answers that are refusals, or talk about being a model, in German, French, Spanish and Chinese, by how they begin."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from core.sample import RejectionReason
from filters.base import Document, DroppedDocument, Filter, MaskedDocument
from filters.rules.openers import BOILERPLATE_CHARACTERS
from filters.text_normalization import STRAIGHT_QUOTES
from plugins.languages.rules import LANGUAGES
from plugins.languages.units import read_wordings


class LocalRefusalFilter(Filter):
    about = "removes refusals in German, French, Spanish and Chinese"
    judges = LANGUAGES
    type: Literal["local_refusal"]

    def apply(self, documents: Sequence[Document], folder: Path) -> Sequence[DroppedDocument | MaskedDocument]:
        drops = []
        for document in documents:
            if found := find_refusal(document, LANGUAGES):
                detail = f"refuses in {read_wordings(found)['name']}"
                drops.append(self.drop(document, detail, reason=RejectionReason.refusal))
        return drops


def find_refusal(document: Document, languages: Sequence[str]) -> str | None:
    """The first of these languages in which a text begins as a refusal does."""
    plain = document.text[: 2 * BOILERPLATE_CHARACTERS].translate(STRAIGHT_QUOTES).lower()
    beginning = " ".join(plain.lstrip("\"'*>#- \t\n").split())
    return next(
        (one for one in languages if any(re.match(form, beginning) for form in read_wordings(one)["refusals"])), None
    )
