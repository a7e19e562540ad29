"""Reads the layout of a document: tags, tables, labels and check boxes become plain lines. Knows no schema.

A row of a table becomes `Header: cell | Header: cell`. Empty cells, labels with a blank and options that are not ticked say
nothing, and are left out. Prose stays as it is.
"""

import csv
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from html.parser import HTMLParser
from itertools import pairwise

from agents.checks.text.text_units import fold_text

TAG = re.compile(r"<(?:([a-z][a-z0-9]*)\b[^<>]*|/([a-z][a-z0-9]*)\s*)>", re.IGNORECASE)
BLOCKS = frozenset(
    "address article aside blockquote div dl dt fieldset footer form h1 h2 h3 h4 h5 h6 header hr legend li main nav ol p section"
    " table tr ul".split()
)
BLANK = r"(?:_{2,}|\.{3,}|…+|-{1,}|–|—|n/a)"
BLANK_LABEL = re.compile(
    rf"(?:^|(?<=\|)|(?<=  ))[^\S\n]*[^\s:|][^:|\n]{{0,49}}:[^\S\n]*(?:\({BLANK}\)|{BLANK})[^\S\n]*(?=$|\||  )",
    re.MULTILINE | re.IGNORECASE,
)
"""A label whose value was left blank."""
LABEL = re.compile(r"[^\s:|][^:|\n]{0,49}:(?!//)")
BOX, TICKED = r"(?:\[[ xX✓✔]?\]|[☐□☒☑])", re.compile(r"\[[xX✓✔]\]|[☒☑]")
OPTION = re.compile(rf"({BOX})([^\[☐□☒☑|\n]*)")
OPTION_BEFORE_BOX = re.compile(rf"([^\[☐□☒☑|\n]*?)\s*({BOX})")
FLAG = re.compile(r"(?im)([^:|\n.;]{1,60}):[^\S\n]*(yes|no|true|false|[✓✔✗✘])[^\S\n]*(?=$|[|.,;(])")
DENIALS = frozenset(("no", "false", "✗", "✘"))
SPACED_NUMBER = re.compile(r"(?<=: )[1-9]\d{0,2}(?: \d{3})+(?=[^\S\n]*(?:[^\W\d]|[|€$£]|$))", re.MULTILINE)
"""All of a label's value; elsewhere `38 400` may be two numbers, so this one is written twice."""
RULE = re.compile(r"(?=.*[-=]{3})[\s|:+=-]*")
"""The line below a table's header."""
LABEL_END = "\0"
"""Between the label and the cell of a row that may have no others."""
MAX_HEADER = 40
"""Characters of a header's cell."""
FEW_LINES = {"|": 2, "\t": 2, "  ": 2, ";": 3, ",": 3}
"""Lines that make a table, by what separates its columns."""
FIELD_HEADER = re.compile(
    r"(?i)\W*(?:(?:field|label)?\W*\|.*|(?:details?|entry|item|key|information)\W*\|\W*values?\W*)"
)
"""The header of a column of labels and a column of values."""


@lru_cache(maxsize=64)
def read_layout(text: str) -> str:
    """`text` as plain lines; the same text if it has no layout."""
    if _has_tags(text):
        reader = _HtmlReader()
        reader.feed(text)
        reader.close()
        text = re.sub(rf"{LABEL_END}(?=\| [^|\n]*\|\n)", ":", "".join(reader.parts)).replace(LABEL_END, "")
        text = re.sub(r"\s+:", ":", re.sub(r"\s*\n\s*", "\n", text))
    lines = [re.sub(r"^(?:> ?)+", "", line).replace("**", "") for line in text.splitlines()]
    lines = _read_tables([_read_boxes(line) for line in lines])
    kept, after = [], ""
    for line in reversed(lines):
        kept += [] if _is_blank_label(line, after) else [line]
        after = line if line.strip() else after
    read = BLANK_LABEL.sub("", "\n".join(reversed(kept))) or text
    return SPACED_NUMBER.sub(lambda match: f"{match[0]} ({match[0].replace(' ', '')})", read)


def read_flags(text: str) -> list[tuple[str, bool]]:
    """The `label: yes` and `label: no` of a text read by `read_layout`: folded label, and whether it is yes."""
    return [(fold_text(match[1]).strip(), match[2].lower() not in DENIALS) for match in FLAG.finditer(text)]


def _has_tags(text: str) -> bool:
    """Whether a tag is opened, and closed behind that."""
    opened: set[str] = set()
    for match in TAG.finditer(text):
        if match[2] and match[2].lower() in opened:
            return True
        opened.add((match[1] or "").lower())
    return False


class _HtmlReader(HTMLParser):
    """Collects text in lines, with | between the cells of a row, and `:` between term and description."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped: str | None = None
        self._cells = ""
        """The tags of the row's cells."""

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        is_text = self.rawdata.startswith("<![CDATA[", i)
        return super().parse_marked_section(i, report) if is_text else self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr" and self._cells:  # end tags of rows may be left out
            self.handle_endtag(tag)
        if tag in ("script", "style", "option"):
            self._skipped = None if tag == "option" and "selected" in given else tag
        elif tag in ("td", "th"):
            self.parts.append(f"{LABEL_END}| " if self._cells == "th" and tag == "td" else "| ")
            self._cells += tag
        elif tag == "input" and given.get("type") in ("checkbox", "radio"):
            self.parts.append("[x] " if "checked" in given else "[ ] ")
        elif tag == "input":
            self.parts.append(f" {given.get('value') or ''} ")
        elif tag == "dd":
            self.parts.append(": ")
        elif tag == "br" or tag in BLOCKS:
            self.parts.append(" / " if self._cells and tag != "tr" else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in (self._skipped, "select"):
            self._skipped = None
        if tag == "tr" or (tag == "table" and self._cells):
            self.parts.append("|\n|---|\n" if self._cells.endswith("th") else "|\n")
            self._cells = ""
        elif tag == "dd" or (tag in BLOCKS - {"dt"} and not self._cells):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._skipped is None:
            self.parts.append(re.sub(r"\s+", " ", data))


def _is_blank_label(line: str, after: str) -> bool:
    """Whether a line is a label without a value, and not the heading of the next line with text, `after`."""
    return bool(LABEL.fullmatch(line.strip())) and (not after.strip() or bool(LABEL.match(after.strip())))


def _read_boxes(line: str) -> str:
    """A line without its boxes and the options that are not ticked."""
    if not re.search(BOX, line):
        return line
    behind = re.search(rf"{BOX}\s*$", line) and not re.match(rf"\W*{BOX}", line)
    if behind:
        return OPTION_BEFORE_BOX.sub(lambda match: f"{match[1]}  " if TICKED.match(match[2]) else "", line)
    return OPTION.sub(lambda match: match[2] if TICKED.match(match[1]) else "", line)


def _read_tables(lines: Sequence[str]) -> list[str]:
    """The lines, with each row of a table as labelled cells."""
    read: list[str] = []
    at = 0
    while at < len(lines):
        for separator, fewest in FEW_LINES.items():
            rows, end = _find_table(lines, at, separator)
            if len(rows) >= fewest and (separator in "|\t" or _is_header(rows[0])):
                read += _label_rows(rows, ruled=bool(RULE.fullmatch(lines[at + 1])))
                at = end
                break
        else:
            read.append(lines[at])
            at += 1
    return read


def _find_table(lines: Sequence[str], start: int, separator: str) -> tuple[list[list[str]], int]:
    """The rows of the table that begins at a line, without its rule, and the line behind it; no rows if there is none."""
    split = _make_splitter(lines[start], separator)
    width = len(split(lines[start]))
    rows, end = [], start
    while width > 1 and end < len(lines):
        cells = split(lines[end])
        if not RULE.fullmatch(lines[end]):
            if len(cells) != width:
                break
            rows.append([cell.strip() for cell in cells])
        end += 1
    return rows, end


def _make_splitter(header: str, separator: str) -> Callable[[str], list[str]]:
    """A function that splits a line into cells; columns aligned by spaces are those of the header."""
    if separator == "|":
        return lambda line: line.strip().strip("|").split("|") if "|" in line else []
    if separator == ",":
        return lambda line: next(csv.reader([line]), []) if line.count(",") > 1 else []
    if separator == ";":
        return lambda line: line.split(";") if line.count(";") > 1 else []
    if separator == "\t":
        return lambda line: line.split("\t")
    starts = [match.start() for match in re.finditer(r"(?:(?<=  )|^)\S", header)]
    if len(starts) < 2 or header.startswith(" "):
        return lambda _: []

    def cut(line: str) -> list[str]:
        if not line.strip() or any(line[max(0, start - 2) : start].strip() for start in starts[1:]):
            return []
        return [line[start:end] for start, end in pairwise([*starts, None])]

    return cut


def _is_header(row: Sequence[str]) -> bool:
    """Whether a table's first row names its columns; the first name may be missing."""
    return all(
        len(cell) <= MAX_HEADER and not re.search(r"[\d.!?:]", cell) and (cell or not i) for i, cell in enumerate(row)
    )


def _label_rows(rows: Sequence[Sequence[str]], *, ruled: bool) -> list[str]:
    header, *body = rows
    if len(header) == 2 and not (ruled and not FIELD_HEADER.fullmatch("|".join(header))):
        pairs = [(name, "" if re.fullmatch(BLANK, value) else value) for name, value in (body if ruled else rows)]
        said = [(name.removesuffix(":"), cell) for name, cell in pairs if cell or not (ruled or name.endswith(":"))]
        return [f"{name}: {value}" if value else name for name, value in said]
    if not _is_header(header) or not body:
        return [" | ".join(filter(None, row)) for row in rows]
    cells = [[(n, c) for n, c in zip(header, row, strict=True) if not re.fullmatch(rf"{BLANK}|", c)] for row in body]
    return [" | ".join(f"{name}: {cell}" if name else cell for name, cell in row) for row in cells]
