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
        patterns = [
            (language, re.compile(pattern)) for language in LANGUAGES for pattern in read_wordings(language)["refusals"]
        ]
        drops = []
        for document in documents:
            plain = document.text[: 2 * BOILERPLATE_CHARACTERS].translate(STRAIGHT_QUOTES).lower()
            beginning = " ".join(plain.lstrip("\"'*>#- \t\n").split())
            if found := next((language for language, pattern in patterns if pattern.match(beginning)), None):
                detail = f"refuses in {read_wordings(found)['name']}"
                drops.append(self.drop(document, detail, reason=RejectionReason.refusal))
        return drops
