"""What a filter takes and returns, and the base classes of filters of plugins. Knows no rule, no sample and no file."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from core.config.filters import FilterTable, KeepOneFilter
from core.sample import FrozenModel, RejectionReason
from filters.masks import TextMask, mask_text
from filters.ragged_arrays import DuplicateMatches, RaggedArray

RowImage = bytes | Path | str
"""An image of a row: its bytes, its file in a run or release, or the address of one that the row does not contain."""


class Document(NamedTuple):
    """The text that filters read, with the id of its sample or row."""

    id: str
    text: str
    asked: str = ""
    """The user's messages."""
    question: str = ""
    """The question alone, where the user's message also has a passage or a schema."""
    around: str = ""
    """The messages of system and tools."""
    score: float | None = None
    """The quality of the answer, for filters that keep the best of several documents; higher is better."""
    masks: tuple[TextMask, ...] = ()
    """What filters have masked in this document, to be masked in every output of its sample."""
    answers: tuple[str, ...] = ()
    """The assistant's turns, without tool calls; empty where `text` is the whole document."""
    thinking: str = ""
    """The thinking before the answers; only filters for personal data and contamination read it."""
    measured: Mapping[str, Any] = {}
    """What filters measured of the document of a run's sample (`FilterTable.open_meter`), by the type of the filter."""
    images: tuple[RowImage, ...] = ()
    """Empty in datasets unless a filter of images is among the filters."""

    @property
    def with_question(self) -> "Document":
        """The document with the user's messages and the answers as its text."""
        text = f"{self.asked}\n{self.text}".strip()
        return self if text == self.text else self._replace(text=text)

    @property
    def parts(self) -> tuple[str, ...]:
        """All text of the document: user, assistant, system and tools, and the thinking if there is any."""
        parts = (self.asked, self.text, self.around)
        return (*parts, self.thinking) if self.thinking else parts

    def drop(
        self, config: FilterTable, reason: RejectionReason, detail: str, score: float | None = None
    ) -> "DroppedDocument":
        """The drop of the document by the filter of this table: the rule and the limit in words, and the measured value."""
        return DroppedDocument(id=self.id, filter=config.type, reason=reason, score=score, detail=detail)

    def apply_masks(self, masks: Sequence[TextMask]) -> "Document":
        parts = (self.asked, self.text, self.around, self.question, self.thinking)
        asked, text, around, question, thinking = (mask_text(part, masks) for part in parts)
        answers = tuple(mask_text(answer, masks) for answer in self.answers)
        return self._replace(
            asked=asked, text=text, around=around, question=question, thinking=thinking, answers=answers,
            masks=(*self.masks, *masks),
        )  # fmt: skip


class DroppedDocument(FrozenModel):
    """Why a document was dropped, in enough detail to check it by hand."""

    id: str
    filter: str
    """The `type` of the filter's table in the recipe."""
    reason: RejectionReason
    score: float | None = None
    """The measured value, in the unit of the filter's limit."""
    duplicate_of: str | None = None
    """The document that this one repeats. This filter kept it; a later filter may have dropped it for another reason."""
    overlaps: tuple[str, ...] = ()
    """Rows of evaluation sets that share text with the document, as `file:row`."""
    detail: str
    """The rule, the score and the limit, in words."""


class MaskedDocument(NamedTuple):
    """A document that is kept with parts of its text masked."""

    id: str
    masks: tuple[TextMask, ...]


class FilterResult(NamedTuple):
    """All documents, kept or dropped, each part in input order."""

    kept: list[Document]
    dropped: list[DroppedDocument]


RowFilter = Callable[..., Sequence[DroppedDocument | MaskedDocument]]
"""Decides on each document by itself. Called with the documents and the filter's table of the recipe. Ids are unique, and a
document is dropped or masked at most once.
"""


class SetFilter(NamedTuple):
    """Compares documents with one another and keeps the first of each group of similar ones. The caller chooses the order."""

    sketch: Callable[[Sequence[Document], Any], RaggedArray]
    """Depends on one document at a time, so batches can be sketched anywhere and joined."""
    compare: Callable[[RaggedArray, Any, Path], DuplicateMatches]
    """Relative paths in the table start from the folder."""
    reason: RejectionReason
    detail: Callable[[Any, float, str], str]
    """Table, similarity and original: the rule, the score and the limit in words."""


class Filter(FilterTable, ABC):
    """A filter of a plugin: its table in the recipe, and the rule for single documents. `type` is a `Literal` of
    its name, `about` a phrase that begins with "removes".
    """

    about = "removes documents"

    @abstractmethod
    def apply(self, documents: Sequence[Document], folder: Path) -> Sequence[DroppedDocument | MaskedDocument]:
        """The documents to drop, by `drop`, or to keep masked; documents that are not returned are kept. A decision must not
        depend on other documents, which come in batches and in any process. Relative paths of the table start from `folder`.
        """

    def drop(
        self, document: Document, detail: str, *, reason: RejectionReason = RejectionReason.quality, score: float | None = None
    ) -> DroppedDocument:  # fmt: skip
        """The drop of a document: the rule and the limit in words, a reason of the closed set, and the measured value."""
        return document.drop(self, reason, detail, score)


class PairFilter(KeepOneFilter, ABC):
    """A filter of a plugin that compares documents with one another and keeps one of each group of similar ones: its table in the
    recipe, and what it compares.
    """

    about = "removes documents that repeat others"
    compares = "documents"
    reason: ClassVar[RejectionReason] = RejectionReason.near_duplicate

    @abstractmethod
    def sketch(self, documents: Sequence[Document]) -> RaggedArray:
        """What `find_repeats` compares: a row for each document, empty for one that repeats none. It depends on one document at a
        time, which come in batches and in any process; the type of the values is that of no documents, too.
        """

    @abstractmethod
    def find_repeats(self, sketches: RaggedArray, folder: Path) -> DuplicateMatches:
        """Which rows repeat an earlier row that is kept. Relative paths of the table start from `folder`."""

    @abstractmethod
    def explain(self, similarity: float, original: str) -> str:
        """Why a document that repeats `original` is dropped: the rule and the limit in words."""
