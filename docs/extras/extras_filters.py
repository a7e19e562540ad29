import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stillhouse import Document, DroppedDocument, Filter, RejectionReason

OFFER = re.compile(r"let me know if|feel free to ask|hope (?:this|that) helps", re.IGNORECASE)


class SignOff(Filter):
    about = "removes answers that end with an offer of further help"
    type: Literal["sign_off"]
    last_words: int = 12

    def apply(self, documents: Sequence[Document], folder: Path) -> list[DroppedDocument]:
        drops = []
        for document in documents:
            end = " ".join(document.text.split()[-self.last_words :])
            if offer := OFFER.search(end):
                drops.append(self.drop(document, f"ends with {offer[0]!r}", reason=RejectionReason.boilerplate))
        return drops
