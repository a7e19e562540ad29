"""References: real text that the collapse metrics compare with. Files that `stillhouse reference` writes, files of the user, and
the named references, which a plugin makes on first use. Knows no metric.
"""

import ast
import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import UsageError
from core.plugins import load_part_of
from core.project_files import NAMED_REFERENCES, find_referenced_file
from core.storage.atomic_files import write_atomically
from core.storage.bounded_reading import check_regular_file
from flows.rows.dataset_rows import is_parquet, read_dataset_documents

METADATA_KEY = b"stillhouse.reference"
MIN_FUNCTION_WORDS = 12
"""A shorter function only returns something: most are `__eq__`, `__repr__` and properties, alike in all code."""
UNSPACED_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters, which are written without spaces."""
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
        reference: Reference = load_part_of("code", "reference", name, f"the reference {name}")(cache)
        return reference
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


def count_passage_words(text: str) -> int:
    """Words by white space; two Chinese characters or kana count as one, and 12 characters as at least one."""
    unspaced = len(UNSPACED_CHARACTER.findall(text))
    spaced = UNSPACED_CHARACTER.sub(" ", text) if unspaced else text
    return max(len(spaced.split()) + (unspaced + 1) // 2, len(text) // CHARACTERS_PER_WORD)


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
