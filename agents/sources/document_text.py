"""The text of one document: plain text, Markdown, HTML or PDF in, normalized text out.

Documents are untrusted: nothing is fetched, sizes are limited.
"""

import codecs
import logging
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from core.errors import UsageError

DOCUMENT_KINDS = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
"""Kind of document by file extension, in any case."""

MAX_MB = 100
"""A larger file is refused, since reading takes several times its size in memory."""
MAX_PAGES = 5_000
MAX_PDF_SECONDS = 600.0
"""Checked between pages; within a page, pypdf limits the unpacked size."""

NON_TEXT_SELECTOR = (
    "head, script, style, noscript, template, svg, math, iframe, object, form, button, select, dialog, nav, aside, "
    "footer, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search]"
)
"""HTML elements that are not text."""
CHARSET_CORRECTIONS = dict.fromkeys(("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii"), "cp1252") | {
    "utf-16": "utf-8"
}
"""Encodings that HTML declares, and the encodings that browsers use for them (WHATWG's Encoding Standard)."""

NEWLINES = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
BLANKS = re.compile(r"[^\S\n\t]")
NON_CHARSETS = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7"})
"""Python's text encodings that HTML does not have (WHATWG's Encoding Standard); some produce invalid characters."""
INVISIBLE = re.compile(r"\u00ad\n?|[\u200b\u2060\ufeff\ud800-\udfff]|(?![\n\t])[\x00-\x1f\x7f-\x9f]")
"""Soft hyphens with their line break, zero-width characters, lone surrogates, and control characters."""
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
"""Ligatures that PDFs contain and NFC does not decompose."""
EMBEDDED_DATA = re.compile(r"\(data:[^()\s]*\)")
FENCE = re.compile(r" {0,3}(?:```|~~~)")
BLOCK_START = re.compile(r"\s*(?:[-*+•▪◦–]\s|\d{1,3}[.)]\s|[a-z][.)]\s|#{1,6}\s|[|>]|[=_*-]{3,}\s*$)")
"""A line that starts a list item, a heading, a table row or a quotation, or is a rule."""
SINGLE_LINE_BLOCK = re.compile(r"\s*(?:#{1,6}\s|\||[=_*-]{3,}\s*$)|.*(?: {2}|\\)$")
"""A line of Markdown that the next line does not continue: a heading, a table row, a rule, a hard break."""
COLUMNS = re.compile(r"(?<=\S)(?:\t[\t ]*| {3,})(?=\S)")

WRAPPED_WIDTHS = range(40, 201)
"""Lengths of a line, in characters, that an editor or page may have wrapped. A longer line is a paragraph, a shorter line has an
intended break."""
FULL_LINE_SHARE = 0.85
"""A line counts as wrapped if the next word would have made it longer than this share of its longest neighbor. 1 is an exact
width; lines of proportional type vary by some 10%."""


def read_document_text(path: Path) -> str:
    """The text of one document: NFC, white space collapsed, each paragraph on one line.

    Markdown stays Markdown, HTML becomes Markdown; a PDF's tables lose their rows. Raises UsageError naming the file.
    """
    kind = DOCUMENT_KINDS[path.suffix.lower()]
    try:
        size = path.stat().st_size
        if size > MAX_MB * 2**20:
            raise UsageError(f"{path}: has {size / 2**20:.0f} MB, over {MAX_MB}; split it")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if kind == "pdf":
        return _normalize_text("\n".join(_read_pdf_pages(path)).translate(LIGATURES), _joins_plain_line, hyphens=True)
    text = _html_to_markdown(path, data) if kind == "html" else _decode(path, data, "utf-8")
    return _normalize_text(text, _joins_plain_line if kind == "text" else _joins_markdown_line)


def _decode(path: Path, data: bytes, encoding: str) -> str:
    """`data` by its byte order mark, else by `encoding`."""
    for mark, marked in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            encoding = marked
    try:
        if codecs.lookup(encoding).name.replace("-", "_") in NON_CHARSETS:
            raise LookupError(encoding)
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is 0x{data[error.start]:02x}" if error.start < len(data) else "it ends too early"
        raise UsageError(f"{path}: is not {encoding} text ({where}); save it as UTF-8") from None
    except (LookupError, ValueError):  # codecs that are not for text raise either
        raise UsageError(f"{path}: declares the encoding {encoding!r}, which is unknown; save it as UTF-8") from None


def _html_to_markdown(path: Path, data: bytes) -> str:
    from bs4 import BeautifulSoup
    from bs4.dammit import EncodingDetector
    from bs4.element import PreformattedString
    from markdownify import MarkdownConverter

    encoding = EncodingDetector.find_declared_encoding(data, is_html=True) or "utf-8"
    text = _decode(path, data, CHARSET_CORRECTIONS.get(encoding, encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bs4 warns of text that looks like a file name, and of XHTML
        soup = BeautifulSoup(text, "lxml")
    for tag in soup.select(NON_TEXT_SELECTOR):
        tag.decompose()
    for node in soup.find_all(string=lambda node: isinstance(node, PreformattedString)):
        node.extract()  # comments and processing instructions
    mains = soup.select("main, [role=main]")
    converter = MarkdownConverter(
        heading_style="atx", bullets="-", strip=["a", "img"], table_infer_header=True, escape_asterisks=False,
        escape_underscores=False,
    )  # fmt: skip
    try:
        return str(converter.convert_soup(mains[0] if len(mains) == 1 else soup.body or soup))
    except RecursionError:
        raise UsageError(f"{path}: is HTML nested too deeply to be read; take it out of the folder") from None


def _read_pdf_pages(path: Path) -> list[str]:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every small fault of a readable file
    deadline = monotonic() + MAX_PDF_SECONDS
    pages: list[list[str]] = []
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UsageError(f"{path}: is encrypted; save it without a password, or take it out of the folder")
        if not 0 < len(reader.pages) <= MAX_PAGES:
            raise UsageError(f"{path}: has {len(reader.pages)} pages, not 1 to {MAX_PAGES:,}; repair or split it")
        for page in reader.pages:
            if monotonic() > deadline:
                raise UsageError(f"{path}: takes over {MAX_PDF_SECONDS:.0f} s to read; split it")
            pages.append(page.extract_text().splitlines())
    except UsageError:
        raise
    except Exception as error:  # pypdf: "broken PDF files might cause other exceptions" than its own
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"{path}: cannot be read as PDF ({fault}); repair it, or take it out of the folder") from None
    return ["\n".join(lines) for lines in _remove_running_heads(pages)]


def _remove_running_heads(pages: list[list[str]]) -> list[list[str]]:
    """The pages without up to two first and two last lines that most pages share, apart from the page number."""
    pages = [[line for line in lines if line.strip()] for lines in pages]
    for position in (0, -1, 0, -1):
        shapes = [_line_shapes(lines[position], number) if lines else set() for number, lines in enumerate(pages)]
        counts = Counter(shape for page in shapes for shape in page)
        common = {shape for shape, count in counts.items() if count >= 3 and count > len(pages) / 2}
        for lines, page in zip(pages, shapes, strict=True):
            if page & common:
                del lines[position]
    return pages


def _line_shapes(line: str, page: int) -> set[str]:
    """The line, and the line with its first or last number relative to the page number: equal for a running head on all pages."""
    numbers = list(re.finditer(r"[0-9]{1,6}", line))
    relative = (
        f"{line[: number.start()]}#{int(number.group()) - page}{line[number.end() :]}"
        for number in numbers[:1] + numbers[-1:]
    )
    return {line.strip(), *(shape.strip() for shape in relative)}


LineJoiner = Callable[[list[str], int], bool]
"""Whether the line with this index was wrapped, so that the next line continues its text."""


def _normalize_text(text: str, joins: LineJoiner, *, hyphens: bool = False) -> str:
    """Text as `read_document_text` returns it. With `hyphens`, a hyphen at the end of a line is removed."""
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", BLANKS.sub(" ", NEWLINES.sub("\n", text))))
    if joins is _joins_markdown_line:
        text = EMBEDDED_DATA.sub("()", text)
        if text.startswith("---\n") and (end := text.find("\n---\n", 3)) >= 0:
            text = text[end + 5 :]  # without front matter
    lines = text.split("\n")
    parts: list[str] = []
    fenced = False
    for index, line in enumerate(lines):
        fence = joins is _joins_markdown_line and FENCE.match(line) is not None
        fenced ^= fence
        if fenced:
            text_line = line.rstrip()
        elif joins is _joins_plain_line:
            text_line = "  ".join(" ".join(cell.split()) for cell in COLUMNS.split(line))
        else:
            expanded = line.expandtabs(4)
            text_line = expanded[: len(expanded) - len(expanded.lstrip())] + " ".join(expanded.split())
        parts.append(text_line.lstrip() if parts and parts[-1] != "\n" else text_line)
        if fenced or fence or index + 1 == len(lines) or not joins(lines, index):
            parts.append("\n")
        elif _is_hyphenated(line, lines[index + 1]):
            parts[-1:] = [parts[-1].removesuffix("-") if hyphens else parts[-1], ""]
        else:
            parts.append(" ")
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _joins_markdown_line(lines: list[str], index: int) -> bool:
    """CommonMark's soft line break."""
    line, after = lines[index : index + 2]
    if (
        not line.strip()
        or not after.strip()
        or BLOCK_START.match(after)
        or SINGLE_LINE_BLOCK.match(line)
        or FENCE.match(after)
    ):
        return False
    return not (line.startswith("    ") and after.startswith("    "))


def _is_hyphenated(line: str, after: str) -> bool:
    return re.search(r"[^\W\d_]-$", line[-3:].rstrip()) is not None and after.lstrip()[:1].islower()


def _joins_plain_line(lines: list[str], index: int) -> bool:
    """A full line, compared with its neighbors, before a line that starts no block."""
    line, after = (text.rstrip() for text in lines[index : index + 2])
    if _is_hyphenated(line, after):
        return True
    if (
        len(line) not in WRAPPED_WIDTHS
        or not after.strip()
        or len(after) >= WRAPPED_WIDTHS.stop
        or BLOCK_START.match(after)
    ):
        return False
    if COLUMNS.search(line) or COLUMNS.search(after) or (after[0].isspace() and not line[0].isspace()):
        return False
    width = max(len(text.rstrip()) for text in lines[max(index - 1, 0) : index + 2])
    if line.endswith((".", "!", "?", ":")) and len(after) < 0.6 * width:
        return False  # a heading, or the end of a paragraph
    return len(line) + 1 + len(after.split()[0]) > FULL_LINE_SHARE * width
