"""The draft of a picture: a title, a table, the form of the picture, and questions with their queries. Data alone: nothing of it
is executed, and no text of it is a path, an address or an expression. Draws nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field, StrictFloat, StrictInt, StrictStr

from agents.reply_schema import ReplySchema
from plugins.pictures.drawing.queries import DataTable, Query

PictureKind = Literal["charts", "tables", "documents"]
Mark = Literal["bar", "horizontal_bar", "line", "point", "area", "pie"]
Template = Literal["invoice", "form", "report", "receipt"]
MAX_ROWS, MAX_COLUMNS, MAX_FIELDS, MAX_QUESTIONS = 24, 6, 12, 8
"""Of a table, of its columns with that of the labels, of a document's fields, and of the questions about one picture."""
MAX_CHART_ROWS, MAX_PIE_ROWS, MAX_SERIES = 16, 7, 4
"""Rows and series beyond which the marks and labels of a chart no longer fit."""
MAX_TITLE, MAX_NAME, MAX_TEXT, MAX_QUESTION = 80, 28, 1_400, 300
"""Characters of a title, of a label or the name of a column, of a paragraph, and of a question."""
MAX_NUMBER = 1_000_000_000
UNDRAWN_CHARACTER = re.compile(r"[^ -~¡-¬®-ſ–—‘’“”„…€−]")
"""A character that not every font of the pictures has. They have ASCII, Latin-1, Latin Extended-A and some punctuation."""
REACHING_TEXT = re.compile(
    r"://|\b(?:file|data|javascript|vbscript|blob):(?=\S)|\b(?:href|src|url|datum|expr)\s*[=:(.\[]|\.\./|[<>{}`\\]|\$\{|#\w+\(",
    re.IGNORECASE,
)
"""Text that a renderer with more abilities would take for an address, a path, markup or an expression."""

Text = StrictStr


class ChartDraft(ReplySchema):
    """The form of a chart; the first column is drawn along one axis, and each other column is a series."""

    mark: Mark
    sort: Literal["none", "ascending", "descending"] = "none"
    """The order of the rows by the first series."""


class QuestionDraft(ReplySchema):
    question: Text = Field(min_length=8, max_length=MAX_QUESTION)
    program: Query


class FieldDraft(ReplySchema):
    """A line of a document, as `Date` and `3 May 2025`."""

    name: Text
    text: Text


class PictureDraft(ReplySchema):
    """What a generator writes: everything but the answers, which are computed."""

    title: Text = Field(min_length=1, max_length=MAX_TITLE)
    columns: list[Text] = Field(min_length=2, max_length=MAX_COLUMNS)
    rows: list[list[StrictStr | StrictInt | StrictFloat]] = Field(min_length=1)
    chart: ChartDraft | None = None
    """Of a chart."""
    template: Template | None = None
    """Of a document."""
    fields: list[FieldDraft] = Field([], max_length=MAX_FIELDS)
    """Of a document."""
    totals: list[FieldDraft] = Field([], max_length=4)
    """Of a document, below its table."""
    paragraph: Text = Field("", max_length=MAX_TEXT)
    """Of a table or document; in a report above the table, else below it."""
    note: Text = ""
    """A source or remark in small letters."""
    questions: list[QuestionDraft] = Field(min_length=1, max_length=MAX_QUESTIONS)

    @property
    def table(self) -> DataTable:
        """The data in the order in which they are drawn."""
        rows: list[list[Any]] = [list(row) for row in self.rows]
        if self.chart and self.chart.sort != "none":
            rows.sort(key=lambda row: row[1], reverse=self.chart.sort == "descending")
        fields = {field.name: field.text for field in (*self.fields, *self.totals)}
        return DataTable(self.columns, rows, fields, prose=f"{self.title}\n{self.note}\n{self.paragraph}")


class _NamedText(NamedTuple):
    where: str
    text: str
    longest: int


def find_spec_fault(draft: PictureDraft, kind: PictureKind) -> str | None:
    """The first fault of a draft that keeps it from being drawn as a picture of this kind, in words."""
    return next(_list_faults(draft, kind), None)


def _list_faults(draft: PictureDraft, kind: PictureKind) -> Iterator[str]:
    yield from _list_text_faults(draft)
    yield from _list_table_faults(draft)
    if kind == "charts":
        yield from _list_chart_faults(draft)
    elif draft.chart:
        yield f"a picture of {kind} has no `chart`"
    if kind == "documents":
        yield from _list_document_faults(draft)
    elif draft.template or draft.fields or draft.totals or (draft.paragraph and kind == "charts"):
        yield f"a picture of {kind} has no `template`, `fields` or `totals`, and a chart no `paragraph`"


def _list_text_faults(draft: PictureDraft) -> Iterator[str]:
    for named in _list_texts(draft):
        if not named.text.strip() or named.text != named.text.strip():
            yield f"{named.where} {named.text[:40]!r} is empty or begins or ends with a space"
        if len(named.text) > named.longest:
            yield f"{named.where} {named.text[:40]!r} has {len(named.text)} characters; {named.longest} are allowed"
        if foreign := UNDRAWN_CHARACTER.search(named.text):
            yield (
                f"{named.where} {named.text[:40]!r} has the character U+{ord(foreign[0]):04X}, which the fonts of the pictures "
                "lack; use letters of European languages"
            )
    for text in [*(named.text for named in _list_texts(draft)), *(asked.question for asked in draft.questions)]:
        if reaching := REACHING_TEXT.search(text):
            yield f"{text[:60]!r} contains {reaching[0]!r}: no address, path, markup or expression is allowed"


def _list_document_faults(draft: PictureDraft) -> Iterator[str]:
    if not draft.template:
        yield "a document needs a `template`: invoice, form, report or receipt"
    if draft.template != "report" and not draft.fields:
        yield f"a document with the template {draft.template} needs `fields`"


def _list_texts(draft: PictureDraft) -> Iterator[_NamedText]:
    yield _NamedText("the title", draft.title, MAX_TITLE)
    for name in draft.columns:
        yield _NamedText("the column", name, MAX_NAME)
    for row in draft.rows:
        for cell in row:
            if isinstance(cell, str):
                yield _NamedText("the label", cell, MAX_NAME)
    for field in (*draft.fields, *draft.totals):
        yield _NamedText("the field", field.name, MAX_NAME)
        yield _NamedText(f"the field {field.name[:MAX_NAME]!r}, with the text", field.text, MAX_TITLE)
    if draft.paragraph:
        yield _NamedText("the paragraph", draft.paragraph, MAX_TEXT)
    if draft.note:
        yield _NamedText("the note", draft.note, MAX_TITLE)


def _list_table_faults(draft: PictureDraft) -> Iterator[str]:
    if len(draft.rows) > MAX_ROWS:
        yield f"the table has {len(draft.rows):,} rows; {MAX_ROWS} are allowed"
        return
    labels = [str(row[0]) if row else "" for row in draft.rows]
    names = [field.name for field in (*draft.fields, *draft.totals)]
    for what, texts in (("columns", draft.columns), ("rows", labels), ("fields", names)):
        if twice := [text for text, count in Counter(map(str.casefold, texts)).items() if count > 1]:
            yield f"several {what} are called {twice[0]!r}, so a question about one is about all"
    for row in draft.rows:
        if len(row) != len(draft.columns):
            yield f"the row {str(row)[:60]} has {len(row)} values, and there are {len(draft.columns)} columns"
        elif not isinstance(row[0], str):
            yield f"the row {str(row)[:60]} begins with {row[0]!r}; the first column has labels, as texts"
        elif wrong := next((c for c in row[1:] if isinstance(c, str) or not -MAX_NUMBER <= c <= MAX_NUMBER), None):
            yield f"the row {row[0]!r} has {str(wrong)[:40]!r}; all columns but the first have numbers of at most {MAX_NUMBER:,}"


def _list_chart_faults(draft: PictureDraft) -> Iterator[str]:
    if draft.chart is None:
        yield "a chart needs `chart` with its `mark`"
        return
    mark, series = draft.chart.mark, len(draft.columns) - 1
    numbers = [cell for row in draft.rows for cell in row[1:] if not isinstance(cell, str)]
    most = MAX_PIE_ROWS if mark == "pie" else MAX_CHART_ROWS
    if not 2 <= len(draft.rows) <= most:
        yield f"a chart with the mark {mark} has 2 to {most} rows, not {len(draft.rows)}"
    if series > (1 if mark in ("pie", "area") else MAX_SERIES):
        yield f"a chart with the mark {mark} has fewer series than {series}"
    if mark in ("pie", "area") and min(numbers, default=1) <= 0:
        yield f"a chart with the mark {mark} needs values above 0, not {min(numbers)}"
    if draft.chart.sort != "none" and mark in ("line", "area"):
        yield f"a chart with the mark {mark} keeps the order of its rows; set `sort` to none"
