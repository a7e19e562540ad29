"""References: real text that the collapse metrics compare with. Files that `stillhouse reference` writes, files of the user, and
the named references, which are made here on first use. Knows no metric.
"""

import ast
import hashlib
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import UsageError
from core.installation import read_version
from core.project_files import NAMED_REFERENCES, find_referenced_file
from core.storage.atomic_files import write_atomically
from core.storage.bounded_reading import check_regular_file
from flows.rows.dataset_rows import is_parquet, read_dataset_documents

METADATA_KEY = b"stillhouse.reference"
REFERENCE_CACHE_FOLDER = "references"
"""The folder in a cache for named references, next to the null distributions."""
LIBRARY_BUILD = 2
"""Part of the name of the cached standard library: a change of what is taken from it makes another file."""
LEFT_OUT_PACKAGES = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__"}
)
"""Folders of the standard library that are tests, demonstrations, or no part of it."""
MIN_FUNCTION_WORDS = 12
"""A shorter function only returns something: most are `__eq__`, `__repr__` and properties, alike in all code."""
MAX_LIBRARY_BYTES = 4 << 20
"""A larger file is a table."""
UNSPACED_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters, which are written without spaces."""
PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[]?[^\W_a-z])|[。！？]["'”’」』）]*|\n+""")
"""The end of a sentence before a capital, a digit or a letter without case, or of a line. "Mr. Smith" counts as an end too, which
only matters where a passage is full."""
CHARACTERS_PER_WORD = 12
"""A word has at most this number of characters on average, so text without any space is not one word."""
MAX_CODE_CHARACTERS = 2_000_000
"""A larger file of code is data."""


class ReferenceRecord(BaseModel):
    """How a reference was made, stored in its file."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """What a document is: `prose`, `code`."""
    source: str = ""
    """Where the text is from and its licence, in the user's words."""
    files: list[str] = []
    texts: int
    """Texts of the sources that have a passage in it. Passages of one text share its words."""
    documents: int
    turns: dict[str, int] = {}
    """Of dialogues: turns by role."""
    words: int
    split: int | None = None
    """Words to which texts were split; None if functions were taken, or by the defaults."""
    seed: int
    read: int
    """Texts of the sources."""
    dropped: dict[str, int] = {}
    """Documents that were left out, by reason."""
    sha256: str
    """Of the texts in order, as UTF-8, each followed by the byte FF."""
    version: str
    """Of Stillhouse."""


class Reference(NamedTuple):
    """Real text, ready for a comparison."""

    name: str
    """As reports show it."""
    texts: list[str]
    origins: list[str] | None = None
    """The text that each document is a passage of; None where every document is a text of its own."""
    record: ReferenceRecord | None = None
    general: bool = False
    """Whether it is of other origin than any dataset: a named reference, which real data differs from as well."""


def load_reference(name: str, folder: Path, cache: Path | None = None) -> Reference:
    """The reference that a recipe in `folder` or a command names: a named one, made on first use and kept in `cache`, or a file.

    Raises:
        UsageError: if it cannot be read or made.
    """
    if name in NAMED_REFERENCES:
        return REFERENCE_MAKERS[name](cache)
    return read_reference(find_referenced_file(name, folder), name)


def read_reference(path: Path, name: str = "") -> Reference:
    """A reference from any dataset. `name`: as reports show it, if not as the path.

    Raises:
        UsageError: if it cannot be read, or its texts are not those that its record names.
    """
    try:
        record = read_reference_record(path)
        texts = [document.text for document in read_dataset_documents(path)]
    except UsageError as error:
        raise UsageError(f"the reference: {error}") from None
    if record is None:
        return Reference(name or str(path), texts)
    if hash_texts(texts) != record.sha256:
        raise UsageError(f"the reference: {path}: its texts are not those of its record; make it again")
    return Reference(name or str(path), texts, _read_origins(path), record)


def read_reference_record(path: Path) -> ReferenceRecord | None:
    """The record of a file that `stillhouse reference` wrote; None for others."""
    if not is_parquet(path) or not path.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_regular_file(path)
        stored = (pq.read_schema(path).metadata or {}).get(METADATA_KEY)
        return None if stored is None else ReferenceRecord.model_validate_json(stored)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise UsageError(f"{path}: its record is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _read_origins(path: Path) -> list[str] | None:
    """Read after the texts, which checks the sizes."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if "origin" not in file.schema_arrow.names:
            return None
        return [str(origin) for origin in file.read(["origin"])["origin"].to_pylist()]


def hash_texts(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\xff")
    return digest.hexdigest()


def write_reference(path: Path, texts: Sequence[str], origins: Sequence[str], record: ReferenceRecord) -> None:
    """Write a Parquet file with the columns `text` and `origin`, and the record in its metadata. Any reader of datasets takes it.

    Raises:
        StoreError: if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("text", pa.string()), ("origin", pa.string())], {METADATA_KEY: record.model_dump_json().encode()}
    )
    table = pa.table({"text": list(texts), "origin": list(origins)}, schema=schema)
    with write_atomically(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=5_000)


def load_standard_library(cache: Path | None) -> Reference:
    """The functions of the standard library of the running Python, from its installed files.

    Raises:
        UsageError: if the library is not installed as source.
    """
    name = f"python-{sys.version_info.major}.{sys.version_info.minor}-standard-library"
    file = None
    if cache:
        version = ".".join(map(str, sys.version_info[:3]))
        file = cache / REFERENCE_CACHE_FOLDER / f"python-{version}-standard-library-{LIBRARY_BUILD}.parquet"
        if file.is_file():
            return read_reference(file, name)._replace(general=True)
    functions = dict(_list_library_functions(Path(sysconfig.get_path("stdlib"))))
    if not functions:
        raise UsageError(
            "the reference python: the standard library of this Python is not installed as source; give a file of real code, or "
            "turn the comparison off (`collapse.reference = false`)"
        )
    texts, origins = list(functions), list(functions.values())
    record = ReferenceRecord(
        kind="code", source=f"the standard library of Python {sys.version.split()[0]}, PSF License Version 2",
        texts=len(set(origins)), documents=len(texts), words=sum(map(count_passage_words, texts)), seed=0, read=len(texts),
        sha256=hash_texts(texts), version=read_version(),
    )  # fmt: skip
    if file:
        write_reference(file, texts, origins, record)
    return Reference(name, texts, origins, record, general=True)


def _list_library_functions(library: Path) -> Iterator[tuple[str, str]]:
    """Each function with its package, or its module outside packages: functions of a package share names."""
    for parent, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - LEFT_OUT_PACKAGES)
        for path in [Path(parent, name) for name in sorted(names) if name.endswith(".py")]:
            if path.stat().st_size > MAX_LIBRARY_BYTES:
                continue
            for function in split_into_functions(path.read_text(encoding="utf-8", errors="replace")):
                if count_passage_words(function) >= MIN_FUNCTION_WORDS:
                    yield function, path.relative_to(library).parts[0]


REFERENCE_MAKERS: dict[str, Callable[[Path | None], Reference]] = {"python": load_standard_library}


def count_passage_words(text: str) -> int:
    """Words by white space; two Chinese characters or kana count as one, and 12 characters as at least one."""
    unspaced = len(UNSPACED_CHARACTER.findall(text))
    spaced = UNSPACED_CHARACTER.sub(" ", text) if unspaced else text
    return max(len(spaced.split()) + (unspaced + 1) // 2, len(text) // CHARACTERS_PER_WORD)


def split_into_passages(text: str, most: int) -> Iterator[str]:
    """Passages of at most `most` words: whole paragraphs where they fit, else whole sentences. A passage ends with its paragraph
    if it has half of the words. Only a sentence that is too long itself is cut between words.
    """
    passage = ""
    for paragraph in PARAGRAPH_END.split(text):
        for sentence in _split_sentences(paragraph, most):
            longer = f"{passage} {sentence}".strip()
            if count_passage_words(longer) > most:
                yield passage
                longer = sentence
            passage = longer
        if count_passage_words(passage) >= most / 2:
            yield passage
            passage = ""
    if passage:
        yield passage


def _split_sentences(paragraph: str, most: int) -> Iterator[str]:
    """Sentences on one line each, none of more than `most` words."""
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(paragraph)), len(paragraph)]:
        sentence = " ".join(paragraph[start:end].split())
        start = end
        if count_passage_words(sentence) > most:
            yield from _cut_sentence(sentence, most)
        elif sentence:
            yield sentence


def _cut_sentence(sentence: str, most: int) -> Iterator[str]:
    """Parts of at most `most` words. A word that is longer itself is cut inside."""
    part = ""
    for word in sentence.split():
        width = most if UNSPACED_CHARACTER.search(word) else most * CHARACTERS_PER_WORD
        pieces = (
            [word[at : at + width] for at in range(0, len(word), width)] if count_passage_words(word) > most else [word]
        )
        for piece in pieces:
            longer = f"{part} {piece}".strip()
            if count_passage_words(longer) > most:
                yield part
                longer = piece
            part = longer
    if part:
        yield part


def split_into_functions(code: str) -> list[str]:
    """The functions and methods of Python code, each with its decorators and docstring, without indentation of its class. Nested
    functions stay in theirs. Empty for text that is not Python.
    """
    if len(code) > MAX_CODE_CHARACTERS:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as the tree counts them
    functions = []
    waiting: list[ast.stmt] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            indent = len(lines[first - 1]) - len(lines[first - 1].lstrip())
            # A line of a string may begin further left than the function.
            functions.append(
                "\n".join(
                    line if line[:indent].strip() else line[indent:] for line in lines[first - 1 : node.end_lineno]
                )
            )
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            waiting.extend(reversed(node.body))
    return functions
