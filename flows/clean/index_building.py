"""`stillhouse index`: adds a dataset's rows to an index of near-duplicates, describes one, and exchanges signatures with
datasketch. Knows no filter.
"""

from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

from core.errors import UsageError
from filters.duplicates.datasketch_files import SignatureSettings, read_signatures, write_signatures
from filters.duplicates.duplicate_index import HEADER_FILE, DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets
from flows.rows.dataset_rows import read_dataset_documents

INDEX_BATCH_ROWS = 200_000
"""Rows added to an index at once."""
SIGNATURE_BATCH_ROWS = 20_000
"""Rows whose signatures are written at once: 25 MB."""


def add_to_duplicate_index(
    folder: Path, source: Path, name: str, ngram: int, progress: Callable[[str], None], of: str | None = None
) -> int:
    """Add a dataset to the index in `folder`, under `name`. Rows that the index already contains under that name are skipped.
    `of` says which part of a conversation is added. Returns the number of new rows.

    Raises:
        UsageError: if a row cannot be read, or the index has another n-gram or another `of`.
    """
    index = DuplicateIndex(folder, ngram=ngram, of=of)
    before, answers = index.count_documents(name), index.of == "answer"
    rows = (document if answers else document.with_question for document in read_dataset_documents(source))
    texts = islice((document.text for document in rows), before, None)
    while part := list(islice(texts, INDEX_BATCH_ROWS)):
        index.add(build_shingle_sets(part, ngram), name)
        progress(f"{index.count_documents(name):,} rows of {name} are in the index")
    return index.count_documents(name) - before


def describe_duplicate_index(folder: Path, ngram: int) -> dict[str, Any]:
    """The number of documents in an index, by source, and its size. Raises UsageError if there is no index."""
    if not (folder / HEADER_FILE).exists():
        raise UsageError(f"{folder}: no index of near-duplicates; create it with --add DATASET")
    index = DuplicateIndex(folder, ngram=ngram)
    names = dict.fromkeys(source.name for source in index.sources)
    return {
        "documents": len(index),
        "of": index.of,
        "bytes": index.size_bytes,
        "sources": {name: index.count_documents(name) for name in names},
    }


def write_datasketch_file(file: Path, source: Path, name: str, ngram: int, of: str) -> int:
    """Write the MinHash signatures of a dataset for datasketch; keys are `name:row`. Returns the number of rows.

    Raises:
        UsageError: if a row cannot be read.
        StoreError: if a file cannot be written.
    """
    documents = read_dataset_documents(source)
    texts = (document.text if of == "answer" else document.with_question.text for document in documents)
    batches = iter(lambda: list(islice(texts, SIGNATURE_BATCH_ROWS)), [])
    numbers = count(1)
    rows = (([f"{name}:{next(numbers)}" for _ in batch], build_shingle_sets(batch, ngram)) for batch in batches)
    return write_signatures(file, rows, SignatureSettings(ngram, of))


def import_datasketch_file(folder: Path, file: Path, name: str, ngram: int, of: str | None = None) -> int:
    """Add the rows of a signature file to the index in `folder`; a new index takes `of` from the file. Returns the number of new
    rows.

    Raises:
        UsageError: if the file cannot be read, or differs from the index in n-gram or part of conversations.
    """
    if not (folder / HEADER_FILE).exists():
        of = of or read_signatures(file).settings.of
    return DuplicateIndex(folder, ngram=ngram, of=of).import_signatures(file, name)
