"""The index on disk: what comes later is judged as if all of it had been there, nearly; and nothing breaks it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import PlantedCorpus
from core.config.filters import MinHashFilter
from core.errors import UsageError
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.chain.registry import find_filter_problems
from filters.duplicates.duplicate_index import MAX_SEGMENTS, DuplicateIndex, IndexMatches
from filters.duplicates.shingles import build_shingle_sets, hash_shingles

ROOT = Path(__file__).resolve().parents[3]


def corpus(rows: int, *, templated: bool = False, seed: int = 11) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts, and their near-duplicate pairs."""
    texts, planted = next(PlantedCorpus(rows, templated=templated, seed=seed).batches())
    return texts, [(pair.earlier, pair.later) for pair in planted if pair.similarity >= 0.8]


def jaccard(left: str, right: str) -> float:
    one, other = hash_shingles(left, 5), hash_shingles(right, 5)
    return len(one & other) / len(one | other)


def added(folder: Path, texts: Sequence[str], name: str = "first") -> DuplicateIndex:
    index = DuplicateIndex(folder)
    index.add(build_shingle_sets(texts, 5), name)
    return index


def checked(index: DuplicateIndex, texts: Sequence[str], threshold: float = 0.8) -> IndexMatches:
    return index.check(build_shingle_sets(texts, 5), threshold)


@pytest.mark.parametrize("templated", [False, True])
def test_a_check_finds_near_duplicates_of_added_documents(tmp_path: Path, templated: bool) -> None:
    texts, near = corpus(8000, templated=templated)
    for first in range(0, 4000, 1000):
        added(tmp_path, texts[first : first + 1000])
    found = checked(DuplicateIndex(tmp_path), texts[4000:])
    repeats = {4000 + a: rest for a, *rest in zip(*(column.tolist() for column in found), strict=True)}
    across = [(earlier, later) for earlier, later in near if earlier < 4000 <= later]
    sure = {later for earlier, later in across if jaccard(texts[earlier], texts[later]) > 0.83}
    assert len(sure) > 60
    assert len(sure - set(repeats)) <= 0.005 * len(sure)
    assert len({later for _, later in across} - set(repeats)) <= 0.02 * len(across)
    true = {a: jaccard(texts[a], texts[b]) for a, (b, *_) in repeats.items()}
    assert min(true.values()) > 0.76
    assert sum(one < 0.8 for one in true.values()) <= 0.02 * len(repeats)
    off = np.array([(how_much - true[a]) / error for a, (_, how_much, error) in repeats.items() if error])
    assert off.size > 40
    assert 0.5 < np.sqrt((off**2).mean()) < 2


def test_many_small_additions_give_the_matches_of_one_large_addition_in_few_files(tmp_path: Path) -> None:
    texts, _ = corpus(600)
    added(tmp_path / "once", texts[:100])
    once = added(tmp_path / "once", texts[100:400])
    added(tmp_path / "often", texts[:100])
    for first in range(100, 400, 15):
        often = added(tmp_path / "often", texts[first : first + 15])
    found, expected = checked(often, texts[200:]), checked(once, texts[200:])
    assert 200 < expected[0].size < 400, "those that are there, and near-duplicates among the others"
    for column, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, other)
    assert len(list((tmp_path / "often").glob("segment-*"))) <= MAX_SEGMENTS


def test_an_index_needs_less_than_200_bytes_per_document(tmp_path: Path) -> None:
    index = added(tmp_path, corpus(10_000)[0])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == index.size_bytes
    assert index.size_bytes <= 200 * len(index)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', "\0"])
def test_files_other_than_an_index_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UsageError, match="no index of near-duplicates"):
        DuplicateIndex(tmp_path)


ADDING = """
import sys
import time
from pathlib import Path
from benchmarks.corpus import PlantedCorpus
from filters.duplicates.duplicate_index import DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets
texts, _ = next(PlantedCorpus(1200, seed=11).batches())
index = DuplicateIndex(Path(sys.argv[1]))
print("ready", flush=True)
while len(index) < 1200:
    index.add(build_shingle_sets(texts[len(index) : len(index) + 20], 5), "all")
    print(len(index), flush=True)
time.sleep(3600)  # until the kill, however late it comes
"""


def test_an_addition_that_is_killed_leaves_a_good_index(tmp_path: Path) -> None:
    texts, _ = corpus(1200)
    for wait in (0.0, 0.004, 0.009):
        child = subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.stdout.readline()
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        printed = child.stdout.read().split()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        index = DuplicateIndex(tmp_path)
        assert len(index) % 20 == 0
        assert len(index) >= (int(printed[-1]) if printed else 20)
        assert checked(index, texts[: len(index)]).repeated.size == len(index) == index.count_documents("all")
    added(tmp_path, texts[len(index) :], "all")
    assert len(DuplicateIndex(tmp_path)) == 1200
    assert not list(tmp_path.glob(".*"))


def test_a_cut_off_write_is_not_read(tmp_path: Path) -> None:
    texts, _ = corpus(100)
    added(tmp_path, texts)
    (tmp_path / ".index.json.partial").write_bytes(b'{"format"')
    (tmp_path / "segment-000099").write_bytes(b"half of it")
    assert checked(DuplicateIndex(tmp_path), texts).repeated.size == 100
    added(tmp_path, ["some more words of another text"])
    assert not (tmp_path / "segment-000099").exists()


def test_a_filter_with_an_index_drops_repeats_of_the_index_and_of_the_input(tmp_path: Path) -> None:
    texts, _ = corpus(40)
    added(tmp_path / "releases", texts[:20], "week 1")
    config = MinHashFilter(type="minhash", index="releases")
    given = [Document("a", texts[30]), Document("b", texts[3] + " more"), Document("c", texts[30] + "!")]
    kept, dropped = apply_filters(given, [config], tmp_path)
    assert [one.id for one in kept] == ["a"]
    assert [(drop.id, drop.duplicate_of) for drop in dropped] == [("b", "week 1:4"), ("c", "a")]
    assert "similarity 0.9" in dropped[0].detail
    assert list(find_filter_problems([config], tmp_path)) == []
    (problem,) = find_filter_problems([config.model_copy(update={"index": "none"})], tmp_path)
    assert "no index of near-duplicates; make one with `stillhouse index" in problem.what
