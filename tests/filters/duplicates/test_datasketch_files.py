"""Signature files: the same query results here, in datasketch, and in an index that imported them."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash, MinHashLSH

from benchmarks.corpus import PlantedCorpus
from core.errors import UsageError
from filters.duplicates import signatures
from filters.duplicates.datasketch_files import FORMAT, SignatureSettings, read_signatures, write_signatures
from filters.duplicates.duplicate_index import DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets

SETTINGS = SignatureSettings()


def corpus(rows: int) -> list[str]:
    return next(PlantedCorpus(rows, templated=False, seed=5).batches())[0]


def write(path: Path, texts: list[str]) -> Path:
    keys = [f"row:{number}" for number in range(len(texts))]
    write_signatures(path, [(keys, build_shingle_sets(texts, 5))], SETTINGS)
    return path


def test_permutations_are_those_of_a_datasketch_minhash() -> None:
    factors, terms = MinHash(num_perm=64, seed=3, scheme="affine32").permutations
    ours = signatures._load_permutations(64, 3)
    assert (ours[0] == factors).all()
    assert (ours[1] == terms).all()


def test_an_index_with_imported_rows_finds_what_an_index_with_added_rows_finds(tmp_path: Path) -> None:
    texts = corpus(3000)
    added, imported = DuplicateIndex(tmp_path / "added"), DuplicateIndex(tmp_path / "imported")
    added.add(build_shingle_sets(texts[:2000], 5), "old")
    assert imported.import_signatures(write(tmp_path / "rows.parquet", texts[:2000]), "old") == 2000
    assert imported.import_signatures(tmp_path / "rows.parquet", "old") == 0
    sets = build_shingle_sets(texts[2000:], 5)
    expected, actual = added.check(sets, 0.8), imported.check(sets, 0.8)
    both = np.intersect1d(expected.repeated, actual.repeated)
    assert both.size >= 0.85 * max(expected.repeated.size, actual.repeated.size) > 20
    assert imported.label(int(actual.original[0])).startswith("old:")
    assert len(imported) == imported.count_documents("old") == 2000


def test_an_import_with_other_shingles_is_refused(tmp_path: Path) -> None:
    write_signatures(tmp_path / "rows.parquet", [], SignatureSettings(ngram=3))
    with pytest.raises(UsageError, match="signatures of ngram 3, of = conversation; the index has ngram 5"):
        DuplicateIndex(tmp_path / "index").import_signatures(tmp_path / "rows.parquet", "x")


def parquet(path: Path, rows: list[bytes], **metadata: str) -> Path:
    values = {"format": FORMAT, **SETTINGS._asdict(), **metadata}
    described = {key: str(value) for key, value in values.items()}
    schema = pa.schema([("key", pa.string()), ("minhash", pa.binary())], metadata=described)
    pq.write_table(pa.table([[str(i) for i in range(len(rows))], rows], schema=schema), path)
    return path


def serialized(scheme: str, count: int = 16) -> bytes:
    from datasketch import LeanMinHash

    minhash = LeanMinHash(MinHash(num_perm=count, scheme=scheme))
    buffer = bytearray(minhash.bytesize("<"))
    minhash.serialize(buffer, "<")
    return bytes(buffer)


@pytest.mark.parametrize(
    ("rows", "metadata", "problem"),
    [
        ([], {"format": "other"}, "not a file of MinHash signatures"),
        ([], {"shingles": "sha1"}, "the signatures are of shingles 'sha1'"),
        ([b""], {}, "row 1 is not a serialized LeanMinHash"),
        ([b"\xff" * 40], {}, "row 1 is not a serialized LeanMinHash"),
        ([pickle.dumps({})], {}, "row 1 is not a serialized LeanMinHash"),
        ([serialized("legacy")], {}, "the MinHash scheme is 'legacy'"),
        ([serialized("affine32"), serialized("affine32", 17)], {}, "row 2 has another length"),
    ],
)
def test_files_with_other_contents_are_refused(
    tmp_path: Path, rows: list[bytes], metadata: dict[str, str], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        read_signatures(parquet(tmp_path / "rows.parquet", rows, **metadata))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "lsh.pickle").write_bytes(pickle.dumps(MinHashLSH(num_perm=16, params=(4, 4))))
    with pytest.raises(UsageError, match="cannot be read as a file of MinHash signatures"):
        read_signatures(tmp_path / "lsh.pickle")
