"""The user's documents as chunks: files of text, Markdown, HTML and PDF in, passages of whole sentences out.

Knows no family and no recipe. Documents are untrusted: nothing is fetched, no link is followed, sizes are limited.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from agents.sources.document_text import DOCUMENT_KINDS, read_document_text
from agents.sources.seed_source import SkippedFile, find_entry_fault, format_source, iterate_source_files
from core.errors import UsageError
from core.installation import format_install_command
from core.sample import json_digest
from core.storage.atomic_files import hash_file

REQUIRED_PACKAGES = ("bs4", "lxml", "markdownify", "pypdf", "semantic_text_splitter")

SPLIT_CHARACTERS = 200_000
"""Characters of one slab, the input of one split: the splitter takes quadratic time in the pieces of a text, two minutes for
5 MB of words without a full stop. Slabs end with a paragraph, and chunks do not overlap between them."""

MARKDOWN_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)[\s#]*$")
MAX_HEADING_WORDS = 12
STATEMENT_END = re.compile(r"[.!?…。！？:;,][\"'”’»)\]*_]*$")
NO_HEADING = re.compile(r"\s*(?:[-*+•|>`~=_]|\d+[.)]\s)")
"""A line of a list, a table, a quotation, code or a rule."""

TABLE_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
"""The second line of a table in Markdown."""

UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters."""


class DocumentChunk(NamedTuple):
    """A passage of a document: `text` starts at the character `start` of the document's text; before that, the header of a
    table that the passage begins inside.
    """

    source: str
    """The file's path from the folder, with `/` on every system."""
    number: int
    """The chunk's number in the document, from 1."""
    text: str
    start: int
    headings: str = ""
    """The document's title and the heading of the chunk's beginning, joined by a slash, without those that it contains."""


class DocumentReading(NamedTuple):
    """The result of reading a folder. Every file that is not hidden has chunks or is in `skipped`."""

    chunks: list[DocumentChunk]
    skipped: list[SkippedFile]
    short_endings: int
    """Number of documents whose last piece was too short for a chunk."""


def read_documents(folder: Path, *, words: int = 180, overlap: int = 0, min_words: int = 10) -> DocumentReading:
    """Read all documents of `folder`, or a single file, in the order of their names.

    Args:
        folder: a folder, read with its subfolders, or a file; hidden files are skipped.
        words: the maximum length of a chunk. It ends with a paragraph if possible, else with a sentence if possible.
        overlap: the maximum number of words, in whole sentences, that a chunk repeats from the previous chunk.
        min_words: a shorter piece, usually a heading, joins the next piece, which may then exceed `words`; at the end of a
            document it is left out. A heading at the end of a chunk joins the next chunk too.

    Raises:
        UsageError: if the folder is missing or has no text, a file is damaged, encrypted, too large or in an unknown encoding,
            or the extra `documents` is not installed.
    """
    if not 0 <= overlap < words or not 0 <= min_words <= words:
        raise ValueError(f"overlap {overlap} and min_words {min_words} must be between 0 and words {words}")
    if problem := documents_problem():
        raise UsageError(f"{folder}: {problem}")
    documents, skipped = _list_documents(folder)
    chunks: list[DocumentChunk] = []
    short = 0
    for source, path in documents:
        text = read_document_text(path)
        kind = DOCUMENT_KINDS[path.suffix.lower()]
        spans, left = _chunk_spans(text, kind, words, overlap, min_words)
        if not spans:
            reason = "has no text: are its pages pictures?" if kind == "pdf" else "has no text"
            if count := count_words(text):
                reason = f"has {count} words, under {min_words}"
            skipped.append(SkippedFile(source, reason))
            continue
        short += left
        headings = list(_find_headings(text))
        chunks += [
            DocumentChunk(
                source, n, _find_table_header(text, start) + text[start:end], start, _headings_before(headings, start)
            )
            for n, (start, end) in enumerate(spans, 1)
        ]
    if not chunks:
        raise UsageError(f"{folder}: has no text of {min_words} words; {skipped[-1].source} {skipped[-1].reason}")
    return DocumentReading(chunks, sorted(skipped), short)


def documents_problem() -> str | None:
    """Why no document can be read, or None."""
    if all(find_spec(name) for name in REQUIRED_PACKAGES):
        return None
    return f"documents need the extra `documents`: run {format_install_command('documents')}"


def hash_documents(folder: Path) -> str:
    """A digest of the names and bytes of the documents that would be read, without skipped files.

    Equal digests give equal chunks with the same versions of the extra `documents`. Raises UsageError as `read_documents`.
    """
    try:
        return json_digest([[source, hash_file(path)] for source, path in _list_documents(folder)[0]], 64)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None


def count_words(text: str) -> int:
    """Words by white space; two Chinese characters or kana count as a word, and 12 characters as at least one.

    So a chunk of a language without spaces, or of long identifiers, is not much longer than others.
    """
    return max(len(text.split()) + len(UNSPACED.findall(text)) // 2, len(text) // 12)


def _list_documents(folder: Path) -> tuple[list[tuple[str, Path]], list[SkippedFile]]:
    """The documents in order, with their paths from the folder, and the skipped files. A named file may be a link."""
    documents: list[tuple[str, Path]] = []
    skipped: list[SkippedFile] = []
    for source, path in iterate_source_files(folder, "documents"):
        reason = find_entry_fault(folder, source, path)
        if not reason and path.suffix.lower() not in DOCUMENT_KINDS:
            reason = f"is none of {', '.join(DOCUMENT_KINDS)}"
        if reason:
            skipped.append(SkippedFile(format_source(source), reason))
        else:
            documents.append((source, path))
    if not documents and folder.is_file():
        raise UsageError(f"{folder}: {skipped[0].reason}")
    if not documents:
        kinds = ", ".join(DOCUMENT_KINDS)
        others = f"; {len(skipped)} other files are there" if skipped else ""
        raise UsageError(f"{folder}: has no document ({kinds}){others}")
    return sorted(documents), skipped


def _chunk_spans(text: str, kind: str, words: int, overlap: int, min_words: int) -> tuple[list[tuple[int, int]], bool]:
    """The start and end of each chunk of a text, and whether its last piece was too short for a chunk."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    # Both split at the sentence boundaries of Unicode (UAX #29); MarkdownSplitter also keeps blocks of Markdown together.
    plain = kind in {"text", "pdf"}
    splitter = (TextSplitter if plain else MarkdownSplitter).from_callback(count_words, words, overlap=overlap)
    spans: list[tuple[int, int]] = []
    carried: int | None = None
    for slab_start, slab in _split_slabs(text):
        for at, piece in splitter.chunk_indices(slab):
            start = slab_start + at if carried is None else carried
            end = slab_start + at + len(piece)
            carried = start if count_words(text[start:end]) < min_words else None
            if carried is None:
                spans.append((start, end))
    return _move_headings(text, spans, min_words), carried is not None


def _find_table_header(text: str, start: int) -> str:
    """The header and the rule of the Markdown table that `start` is inside of, with their line ends; "" elsewhere."""
    if not text.startswith("|", start) or not text.endswith("\n", 0, start):
        return ""
    rows: list[str] = []
    for line in reversed(text[:start].splitlines(keepends=True)):
        if not line.startswith("|"):
            break
        rows.insert(0, line)
    return "".join(rows[:2]) if len(rows) > 1 and TABLE_RULE.fullmatch(rows[1].strip()) else ""


def _move_headings(text: str, spans: list[tuple[int, int]], min_words: int) -> list[tuple[int, int]]:
    """The same chunks, with each heading at the end of one at the start of the next, where its text is."""
    moved = list(spans)
    for i in range(len(moved) - 1):
        start, end = moved[i]
        last = max((at for at, _ in _find_headings(text[start:end])), default=0)
        while last and len(text[start:end][last:].strip().splitlines()) == 1:
            kept = len(text[start : start + last].rstrip())
            if count_words(text[start : start + kept]) < min_words:
                break
            moved[i], moved[i + 1] = (start, start + kept), (min(start + last, moved[i + 1][0]), moved[i + 1][1])
            end = start + kept
            last = max((at for at, _ in _find_headings(text[start:end])), default=0)
    return moved


def _find_headings(text: str) -> Iterator[tuple[int, str]]:
    """The start and words of each heading: of Markdown, or a short line without a full stop, as a text or a PDF has them.

    Such a line opens the text or follows a line that ends a sentence.
    """
    at, before = 0, "."
    for line in text.splitlines(keepends=True):
        words = line.strip()
        if mark := MARKDOWN_HEADING.match(line.rstrip("\n")):
            yield at, mark[1]
            before = "."
        elif words:
            plain = not (NO_HEADING.match(line) or STATEMENT_END.search(words)) and words[0].isupper()
            if plain and len(words.split()) <= MAX_HEADING_WORDS and STATEMENT_END.search(before):
                yield at, words
                words = "."
            before = words
        at += len(line)


def _headings_before(headings: list[tuple[int, str]], start: int) -> str:
    """The title of a document and the nearest heading before a place in it; only the title where a heading begins."""
    earlier = [words for at, words in headings if at < start]
    title = [earlier[0]] if earlier and headings[0][0] == 0 else []
    nearest = [] if any(at == start for at, _ in headings) else earlier[-1:]
    return " / ".join(dict.fromkeys([*title, *nearest]))


def _split_slabs(text: str) -> Iterator[tuple[int, str]]:
    """Parts of at most `SPLIT_CHARACTERS` characters, each with its start; a part ends with a paragraph if possible."""
    start = 0
    while len(text) - start > SPLIT_CHARACTERS:
        half, full = start + SPLIT_CHARACTERS // 2, start + SPLIT_CHARACTERS
        ends = (text.rfind(mark, half, full) + 1 for mark in ("\n\n", "\n", ". ", "。", " "))
        end = next((end for end in ends if end), full)
        yield start, text[start:end]
        start = end
    yield start, text[start:]
