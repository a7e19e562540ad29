"""MinHash signatures in a file that `datasketch` can use. Knows no index of ours.

The file is Parquet with two columns: `key`, and `minhash`, the bytes of `datasketch.LeanMinHash.serialize(buf, "<")`. Its
metadata states how texts were split into shingles, since signatures of other shingles or hashes cannot be compared. The file is
not a pickle: reading a file from a stranger runs no code.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.errors import UsageError
from core.storage.atomic_files import write_atomically
from core.storage.bounded_reading import check_parquet_file
from filters.duplicates.shingles import BoolArray
from filters.duplicates.signatures import (
    PERMUTATION_SCHEME,
    PERMUTATION_SEED,
    Signatures,
    choose_operating_point,
    compute_signatures,
)
from filters.ragged_arrays import Indices, RaggedArray, Scores

if TYPE_CHECKING:
    from datasketch import MinHashLSH

FORMAT = "stillhouse minhash 1"
DEFAULT_PERMUTATIONS = 128
SHINGLE_SCHEME = "stillhouse words 1"
"""The hash of `filters.duplicates.shingles`."""
SERIALIZED_ORDER = "<"


class SignatureSettings(NamedTuple):
    """How the texts became signatures. Signatures with other settings cannot be compared."""

    ngram: int = 5
    of: str = "conversation"
    """The part of a conversation that was read, as `DuplicateFilter.of`."""
    shingles: str = SHINGLE_SCHEME


class SignatureTable(NamedTuple):
    """The content of a signature file."""

    keys: list[str]
    signatures: Signatures
    seed: int
    settings: SignatureSettings


class SimilarRows(NamedTuple):
    """Documents that are similar to a row of a table, in order, each with its most similar row (the first among equals)."""

    documents: Indices
    rows: Indices
    similarity: Scores
    error: Scores
    """The standard error of `similarity`."""


class SignatureWriter(NamedTuple):
    file: Any

    def write(self, keys: Sequence[str], signatures: Signatures, seed: int = PERMUTATION_SEED) -> None:
        """Append rows, serialized by `datasketch.LeanMinHash`."""
        import pyarrow as pa
        from datasketch import LeanMinHash

        serialized = []
        for row in signatures:
            minhash = LeanMinHash(hashvalues=row, seed=seed, scheme=PERMUTATION_SCHEME)
            buffer = bytearray(minhash.bytesize(SERIALIZED_ORDER))
            minhash.serialize(buffer, SERIALIZED_ORDER)
            serialized.append(bytes(buffer))
        columns = [pa.array(keys, pa.string()), pa.array(serialized, pa.binary())]
        self.file.write_table(pa.Table.from_arrays(columns, schema=self.file.schema))


@contextmanager
def open_signature_file(path: Path, settings: SignatureSettings) -> Iterator[SignatureWriter]:
    """Write a signature file batch by batch. It appears at `path` whole or not at all.

    Raises:
        StoreError: if a file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {"format": FORMAT, **{name: str(value) for name, value in settings._asdict().items()}}
    schema = pa.schema([("key", pa.string()), ("minhash", pa.binary())], metadata=metadata)
    with (
        write_atomically(path) as partial,
        pq.ParquetWriter(partial, schema, compression="none", use_dictionary=False) as file,
    ):
        yield SignatureWriter(file)


def write_signatures(path: Path, rows: Iterable[tuple[list[str], RaggedArray]], settings: SignatureSettings) -> int:
    """Write the signatures of batches of keys and shingle sets; return the number of rows."""
    count = 0
    with open_signature_file(path, settings) as writer:
        for keys, sets in rows:
            writer.write(keys, compute_signatures(sets, DEFAULT_PERMUTATIONS))
            count += len(keys)
    return count


def read_signatures(path: Path) -> SignatureTable:
    """Raises UsageError naming a file that is not a signature file, or whose signatures cannot be compared with ours."""
    import struct

    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasketch import LeanMinHash

    try:
        check_parquet_file(path)
        table = pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read as a file of MinHash signatures: {error}") from None
    metadata = table.schema.metadata or {}
    if metadata.get(b"format") != FORMAT.encode() or table.schema.names != ["key", "minhash"]:
        raise UsageError(f"{path}: not a file of MinHash signatures; write one with --to-datasketch")
    ngram, of, shingles = (
        metadata.get(name.encode(), b"").decode("utf-8", "replace") for name in SignatureSettings._fields
    )
    if not ngram.isdigit() or shingles != SHINGLE_SCHEME:
        raise UsageError(f"{path}: the signatures are of shingles {shingles!r}, not {SHINGLE_SCHEME!r}")
    settings = SignatureSettings(int(ngram), of, shingles)
    rows, keys = table["minhash"].to_pylist(), [str(key) for key in table["key"].to_pylist()]
    if not rows:
        return SignatureTable(keys, np.empty((0, DEFAULT_PERMUTATIONS), dtype=np.uint32), PERMUTATION_SEED, settings)

    # datasketch reads the first row; all others must have the same header and length.
    try:
        first = LeanMinHash.deserialize(rows[0], SERIALIZED_ORDER)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: row 1 is not a serialized LeanMinHash: {error}") from None
    if first.scheme != PERMUTATION_SCHEME:
        raise UsageError(
            f"{path}: the MinHash scheme is {first.scheme!r}, not {PERMUTATION_SCHEME!r}; build it with datasketch 2"
        )
    size = first.bytesize(SERIALIZED_ORDER)
    header = rows[0][: size - 4 * len(first)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, bytes) or len(row) != size or not row.startswith(header):
            raise UsageError(f"{path}: row {number} has another length, seed or scheme than row 1")
    values = np.frombuffer(b"".join(row[len(header) :] for row in rows), dtype="<u4")
    signatures = values.astype(np.uint32).reshape(len(rows), len(first))
    return SignatureTable(keys, signatures, int(first.seed), settings)


def build_lsh(table: SignatureTable, keys: Sequence[Any], threshold: float) -> "MinHashLSH":
    """A `datasketch.MinHashLSH` of the rows by these keys."""
    from datasketch import LeanMinHash, MinHashLSH

    permutations = table.signatures.shape[1]
    lsh = MinHashLSH(num_perm=permutations, params=choose_operating_point(threshold, permutations)[:2])
    with lsh.insertion_session() as session:
        for key, row in zip(keys, table.signatures, strict=True):
            session.insert(key, LeanMinHash(hashvalues=row, seed=table.seed, scheme=PERMUTATION_SCHEME))
    return lsh


def find_similar_rows(table: SignatureTable, sets: RaggedArray, threshold: float) -> SimilarRows:
    """The documents whose estimated similarity to a row is at least `threshold`; a `MinHashLSH` proposes the rows.

    The standard error is sqrt(J (1 - J) / permutations), about 0.035 at 0.8 with 128. Takes about 0.1 ms
    per row and per document.
    """
    from datasketch import LeanMinHash

    permutations = table.signatures.shape[1]
    lsh = build_lsh(table, range(len(table.keys)), threshold)
    documents: list[int] = []
    rows: list[int] = []
    similarities: list[float] = []
    for document, signature in enumerate(compute_signatures(sets, permutations, table.seed)):
        minhash = LeanMinHash(hashvalues=signature, seed=table.seed, scheme=PERMUTATION_SCHEME)
        candidates = np.sort(np.array(lsh.query(minhash), dtype=np.int64))
        equal: BoolArray = table.signatures[candidates] == signature
        similarity = equal.mean(axis=1)
        if candidates.size and similarity.max() >= threshold:
            best = int(similarity.argmax())
            documents.append(document)
            rows.append(int(candidates[best]))
            similarities.append(float(similarity[best]))
    scores = np.array(similarities, dtype=np.float64)
    error = np.sqrt(scores * (1 - scores) / permutations)
    return SimilarRows(np.array(documents, dtype=np.int64), np.array(rows, dtype=np.int64), scores, error)
