"""The user's documents as chunks: files of text, Markdown, HTML and PDF in, passages of whole sentences out.

Knows no family and no recipe. Documents are not trusted: nothing is fetched, no link is followed, sizes are bounded.
"""

import codecs
import logging
import os
import re
import stat
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from core.errors import UsageError
from core.sample import digest_of
from core.store import file_hash

KINDS = {".txt": "text", ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".pdf": "pdf"}
"""What is read, by the end of the name, in any case."""
NEEDED = ("bs4", "lxml", "markdownify", "pypdf", "semantic_text_splitter")

MAX_MB = 100
"""A larger file is refused: it is held in memory several times over."""
MAX_PAGES = 5_000
MAX_PDF_SECONDS = 600.0
"""Looked at between pages; within one, pypdf bounds what a page may unpack to."""
SLAB = 200_000
"""Characters that are split at a time: the splitter takes quadratic time in the pieces of a text, two minutes for 5 MB
of words without a full stop. Between slabs, which end with a paragraph, chunks do not overlap."""

NOT_TEXT = (
    "head, script, style, noscript, template, svg, math, iframe, object, form, button, select, dialog, nav, aside, "
    "footer, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search]"
)
"""What HTML holds beside its text."""
MEANT = dict.fromkeys(("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii"), "cp1252") | {"utf-16": "utf-8"}
"""Encodings that HTML declares, and what browsers take them for (WHATWG's Encoding Standard)."""

NEWLINES = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
BLANKS = re.compile(r"[^\S\n\t]")
UNSEEN = re.compile(r"\u00ad\n?|[\u200b\u2060\ufeff\ud800-\udfff]|(?![\n\t])[\x00-\x1f\x7f-\x9f]")
"""Soft hyphens, with the line break that they allowed, characters without width, lone surrogates, and controls."""
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
"""How PDFs draw letters; NFC keeps them."""
EMBEDDED_DATA = re.compile(r"\(data:[^()\s]*\)")
FENCE = re.compile(r" {0,3}(?:```|~~~)")
OPENS = re.compile(r"\s*(?:[-*+•▪◦–]\s|\d{1,3}[.)]\s|[a-z][.)]\s|#{1,6}\s|[|>]|[=_*-]{3,}\s*$)")
"""A line that begins a list item, a heading, a table row or a quotation, or draws a rule."""
ALONE = re.compile(r"\s*(?:#{1,6}\s|\||[=_*-]{3,}\s*$)|.*(?: {2}|\\)$")
"""A line of Markdown that ends what it says: a heading, a table row, a rule, a hard break."""
COLUMNS = re.compile(r"(?<=\S)(?:\t[\t ]*| {3,})(?=\S)")
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters."""

WRAPPED = range(40, 201)
"""Characters of a line that an editor or a page may have broken; a longer one is a paragraph, a shorter one meant so."""
FULL = 0.85
"""A line is broken by its width, not by its author, if the next word would have made it so much of its longest
neighbour: exact width is 1, and lines of proportional type vary by some 10%."""


class Chunk(NamedTuple):
    """A passage of a document: `text` is what the document's text has from the character `start`."""

    source: str
    """The file, from the folder, with `/` on every system."""
    number: int
    """1 for the document's first."""
    text: str
    start: int


class Skipped(NamedTuple):
    """A file that gave no chunk, and why."""

    source: str
    reason: str


class Reading(NamedTuple):
    """What a folder holds. Every file that is not hidden gave chunks or is in `skipped`."""

    chunks: list[Chunk]
    skipped: list[Skipped]
    short: int
    """Endings of documents that were too short to be a chunk."""


def read_chunks(folder: Path, *, words: int = 180, overlap: int = 0, min_words: int = 10) -> list[Chunk]:
    """The chunks of `read_documents`."""
    return read_documents(folder, words=words, overlap=overlap, min_words=min_words).chunks


def read_documents(folder: Path, *, words: int = 180, overlap: int = 0, min_words: int = 10) -> Reading:
    """Read all documents of `folder`, or the one file it is, in the order of their names.

    Args:
        folder: where they are, in nested folders too; hidden files are passed over.
        words: a chunk's length at the most; it ends with a paragraph if one fits, else with a sentence if one fits.
        overlap: words at the most, in whole sentences, that a chunk repeats from the one before.
        min_words: a shorter piece joins the next, which it mostly is the heading of and which may grow over `words` so; a
            document's end is left out.

    Raises:
        UsageError: where the folder is missing or has no text, a file is damaged, encrypted, too large or in an unknown
            encoding, or the extra `documents` is not installed.
    """
    if not 0 <= overlap < words or not 0 <= min_words <= words:
        raise ValueError(f"overlap {overlap} and min_words {min_words} must lie between 0 and words {words}")
    if problem := documents_problem():
        raise UsageError(f"{folder}: {problem}")
    found, skipped = _listed(folder)
    chunks: list[Chunk] = []
    short = 0
    for source, path in found:
        text = read_text(path)
        spans, left = _spans(text, KINDS[path.suffix.lower()], words, overlap, min_words)
        if not spans:
            skipped.append(Skipped(source, _nothing(path, count_words(text), min_words)))
            continue
        short += left
        chunks += [Chunk(source, n, text[start:end], start) for n, (start, end) in enumerate(spans, 1)]
    if not chunks:
        raise UsageError(f"{folder}: has no text of {min_words} words; {skipped[-1].source} {skipped[-1].reason}")
    return Reading(chunks, sorted(skipped), short)


def documents_problem() -> str | None:
    """Why no document can be read, or None."""
    if all(find_spec(name) for name in NEEDED):
        return None
    return "documents need the extra `documents`: run `pip install '.[documents]'`"


def documents_hash(folder: Path) -> str:
    """One digest of the names and bytes of the documents that would be read; files that are skipped do not count.

    Equal ones give equal chunks with the same versions of the extra `documents`.
    Raises UsageError as `read_documents` does for what is missing.
    """
    try:
        return digest_of([[source, file_hash(path)] for source, path in _listed(folder)[0]], 64)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None


def count_words(text: str) -> int:
    """Words by white space, where two Chinese characters or kana count as one, and at least one in 12 characters.

    (So that a chunk of a language without spaces, or of a long code, is not much longer than others.)
    """
    return max(len(text.split()) + len(UNSPACED.findall(text)) // 2, len(text) // 12)


def _nothing(path: Path, words: int, min_words: int) -> str:
    if words:
        return f"has {words} words, under {min_words}"
    return "has no text: are its pages pictures?" if path.suffix.lower() == ".pdf" else "has no text"


# Which files


def _listed(folder: Path) -> tuple[list[tuple[str, Path]], list[Skipped]]:
    """The documents in order, with their names from the folder, and the files that are none."""
    found: list[tuple[str, Path]] = []
    skipped: list[Skipped] = []
    for source, path in _files(folder):
        if reason := _unfit(source, path, named=path == folder):
            skipped.append(Skipped(source.encode(errors="replace").decode(), reason))
        else:
            found.append((source, path))
    if not found and folder.is_file():
        raise UsageError(f"{folder}: {skipped[0].reason}")
    if not found:
        kinds = ", ".join(KINDS)
        here = f"; {len(skipped)} other files are there" if skipped else ""
        raise UsageError(f"{folder}: has no document ({kinds}){here}")
    return sorted(found), skipped


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All that is not hidden, in no order: files, and links to folders. The folder itself may be a link."""
    if folder.is_file():
        yield folder.name, folder
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder or file of documents")

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in [Path(place, name) for name in [*names, *folders] if not name.startswith(".")]:
            if path.is_symlink() or path.name in names:
                yield path.relative_to(folder).as_posix(), path


def _unfit(source: str, path: Path, *, named: bool) -> str | None:
    """Why a file is no document, or None. One that the user `named` may be a link."""
    mode = (path.stat() if named else path.lstat()).st_mode
    if stat.S_ISLNK(mode):
        return "is a link, which is not followed"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if any("\ud800" <= letter <= "\udfff" for letter in source):
        return "has a name that is not Unicode"
    if path.suffix.lower() not in KINDS:
        return f"is none of {', '.join(KINDS)}"
    return None


# What is in them


def read_text(path: Path) -> str:
    """The text of one document, by the end of its name: NFC, white space collapsed, each paragraph on one line.

    Markdown stays Markdown, HTML becomes it; a PDF's tables lose their rows. Raises UsageError naming the file.
    """
    kind = KINDS[path.suffix.lower()]
    try:
        size = path.stat().st_size
        if size > MAX_MB * 2**20:
            raise UsageError(f"{path}: has {size / 2**20:.0f} MB, over {MAX_MB}; split it")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if kind == "pdf":
        return _tidy("\n".join(_pdf_pages(path)).translate(LIGATURES), _plain, hyphens=True)
    text = _html_markdown(path, data) if kind == "html" else _decoded(path, data, "utf-8")
    return _tidy(text, _plain if kind == "text" else _markdown)


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    """`data` by its byte order mark, else by `encoding`."""
    for mark, marked in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            encoding = marked
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is 0x{data[error.start]:02x}" if error.start < len(data) else "it ends too early"
        raise UsageError(f"{path}: is not {encoding} text ({where}); save it as UTF-8") from None
    except (LookupError, ValueError):  # codecs for other things than text raise either
        raise UsageError(
            f"{path}: says that its encoding is {encoding!r}, which is unknown; save it as UTF-8"
        ) from None


def _html_markdown(path: Path, data: bytes) -> str:
    from bs4 import BeautifulSoup
    from bs4.dammit import EncodingDetector
    from bs4.element import PreformattedString
    from markdownify import MarkdownConverter

    encoding = EncodingDetector.find_declared_encoding(data, is_html=True) or "utf-8"
    text = _decoded(path, data, MEANT.get(encoding, encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bs4 wonders aloud whether a short text is a file name, or XHTML is XML
        soup = BeautifulSoup(text, "lxml")
    for tag in soup.select(NOT_TEXT):
        tag.decompose()
    for node in soup.find_all(string=lambda node: isinstance(node, PreformattedString)):
        node.extract()  # comments and processing instructions, which would be text
    mains = soup.select("main, [role=main]")
    converter = MarkdownConverter(
        heading_style="atx", bullets="-", strip=["a", "img"], table_infer_header=True, escape_asterisks=False,
        escape_underscores=False,
    )  # fmt: skip
    try:
        return str(converter.convert_soup(mains[0] if len(mains) == 1 else soup.body or soup))
    except RecursionError:
        raise UsageError(f"{path}: is HTML nested too deeply to be read; take it out of the folder") from None


def _pdf_pages(path: Path) -> list[str]:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells every small fault of a file that it can read
    until = monotonic() + MAX_PDF_SECONDS
    pages: list[list[str]] = []
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UsageError(f"{path}: is encrypted; save it without a password, or take it out of the folder")
        if not 0 < len(reader.pages) <= MAX_PAGES:
            raise UsageError(f"{path}: has {len(reader.pages)} pages, not 1 to {MAX_PAGES:,}; repair or split it")
        for page in reader.pages:
            if monotonic() > until:
                raise UsageError(f"{path}: takes over {MAX_PDF_SECONDS:.0f} s to read; split it")
            pages.append(page.extract_text().splitlines())
    except UsageError:
        raise
    except Exception as error:  # pypdf: "broken PDF files might cause other exceptions" than its own
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"{path}: cannot be read as PDF ({what}); repair it, or take it out of the folder") from None
    return ["\n".join(lines) for lines in _without_running_heads(pages)]


def _without_running_heads(pages: list[list[str]]) -> list[list[str]]:
    """Without up to two first and two last lines that most pages share, but for the number of the page."""
    pages = [[line for line in lines if line.strip()] for lines in pages]
    for place in (0, -1, 0, -1):
        shapes = [_shapes(lines[place], number) if lines else set() for number, lines in enumerate(pages)]
        seen = Counter(shape for page in shapes for shape in page)
        usual = {shape for shape, count in seen.items() if count >= 3 and count > len(pages) / 2}
        for lines, page in zip(pages, shapes, strict=True):
            if page & usual:
                del lines[place]
    return pages


def _shapes(line: str, page: int) -> set[str]:
    """A line as it is, and with its first or its last number counted from the page: equal on the pages of a heading."""
    numbers = list(re.finditer(r"[0-9]{1,6}", line))
    counted = (
        f"{line[: number.start()]}#{int(number.group()) - page}{line[number.end() :]}"
        for number in numbers[:1] + numbers[-1:]
    )
    return {line.strip(), *(shape.strip() for shape in counted)}


# White space

Joint = Callable[[list[str], int], bool]
"""Whether the break after the line of this index was made by the width of a page, so that the text goes on over it."""


def _tidy(text: str, joint: Joint, *, hyphens: bool = False) -> str:
    """Text as `read_text` gives it. `hyphens` at the end of a line were made by it, and are taken out."""
    text = unicodedata.normalize("NFC", UNSEEN.sub("", BLANKS.sub(" ", NEWLINES.sub("\n", text))))
    if joint is _markdown:
        text = _without_front_matter(EMBEDDED_DATA.sub("()", text))
    lines = text.split("\n")
    parts: list[str] = []
    fenced = False
    for index, line in enumerate(lines):
        fence = joint is _markdown and FENCE.match(line) is not None
        fenced ^= fence
        shown = line.rstrip() if fenced else _collapsed(line, joint)
        parts.append(shown.lstrip() if parts and parts[-1] != "\n" else shown)
        if fenced or fence or index + 1 == len(lines) or not joint(lines, index):
            parts.append("\n")
        elif _hyphenated(line, lines[index + 1]):
            parts[-1:] = [parts[-1].removesuffix("-") if hyphens else parts[-1], ""]
        else:
            parts.append(" ")
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _without_front_matter(text: str) -> str:
    end = text.find("\n---\n", 3) if text.startswith("---\n") else -1
    return text if end < 0 else text[end + 5 :]


def _collapsed(line: str, joint: Joint) -> str:
    if joint is _plain:
        return "  ".join(" ".join(cell.split()) for cell in COLUMNS.split(line))
    line = line.expandtabs(4)
    return line[: len(line) - len(line.lstrip())] + " ".join(line.split())


def _markdown(lines: list[str], index: int) -> bool:
    """CommonMark's soft line break."""
    line, after = lines[index : index + 2]
    if not line.strip() or not after.strip() or OPENS.match(after) or ALONE.match(line) or FENCE.match(after):
        return False
    return not (line.startswith("    ") and after.startswith("    "))


def _hyphenated(line: str, after: str) -> bool:
    return re.search(r"[^\W\d_]-$", line[-3:].rstrip()) is not None and after.lstrip()[:1].islower()


def _plain(lines: list[str], index: int) -> bool:
    """A line that is full, as its neighbours go, before one that begins nothing."""
    line, after = (text.rstrip() for text in lines[index : index + 2])
    if _hyphenated(line, after):
        return True
    if len(line) not in WRAPPED or not after.strip() or len(after) >= WRAPPED.stop or OPENS.match(after):
        return False
    if COLUMNS.search(line) or COLUMNS.search(after) or (after[0].isspace() and not line[0].isspace()):
        return False
    width = max(len(text.rstrip()) for text in lines[max(index - 1, 0) : index + 2])
    if line.endswith((".", "!", "?", ":")) and len(after) < 0.6 * width:
        return False  # a heading, or the last words of a paragraph, which can stand on a line of their own
    return len(line) + 1 + len(after.split()[0]) > FULL * width


# Chunks


def _spans(text: str, kind: str, words: int, overlap: int, min_words: int) -> tuple[list[tuple[int, int]], bool]:
    """Where the chunks of a text begin and end, and whether its end was too short to be one."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    # Both know the sentences of Unicode (UAX #29); the first, what belongs together in Markdown.
    plain = kind in {"text", "pdf"}
    splitter = (TextSplitter if plain else MarkdownSplitter).from_callback(count_words, words, overlap=overlap)
    spans: list[tuple[int, int]] = []
    carried: int | None = None
    for begin, slab in _slabs(text):
        for at, piece in splitter.chunk_indices(slab):
            start = begin + at if carried is None else carried
            end = begin + at + len(piece)
            carried = start if count_words(text[start:end]) < min_words else None
            if carried is None:
                spans.append((start, end))
    return spans, carried is not None


def _slabs(text: str) -> Iterator[tuple[int, str]]:
    """Parts of at most `SLAB` characters, with where they begin, that end as well as they can."""
    start = 0
    while len(text) - start > SLAB:
        half, full = start + SLAB // 2, start + SLAB
        ends = (text.rfind(mark, half, full) + 1 for mark in ("\n\n", "\n", ". ", "。", " "))
        end = next((end for end in ends if end), full)
        yield start, text[start:end]
        start = end
    yield start, text[start:]
