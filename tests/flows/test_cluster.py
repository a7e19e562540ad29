"""Near-duplicates on two worker processes are those that one machine finds, also when a worker is lost."""

import json
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Future, LocalCluster

from benchmarks.corpus import Corpus
from core.errors import UsageError
from filters.arrays import Ragged, Repeats
from filters.near import near_duplicates
from filters.shingles import shingle_sets
from flows import cluster as cluster_module
from flows.cluster import near_duplicates_on
from flows.curation import parse_filters
from flows.filtering import filter_dataset


class CountingClient(Client):
    """Counts the bytes of all results that come to the driver."""

    gathered = 0

    def gather(self, *args: Any, **kwargs: Any) -> Any:
        results = super().gather(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.gathered += len(pickle.dumps(results))
        return results


@contextmanager
def two_workers() -> Iterator[CountingClient]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,  # type: ignore[no-untyped-call]
        CountingClient(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[CountingClient]:
    with two_workers() as client:
        yield client


def corpus(rows: int, *, templated: bool) -> list[str]:
    return [text for texts, _ in Corpus(rows, templated=templated, seed=5).batches() for text in texts]


def parted(client: Client, texts: Sequence[str], parts: int = 5, ngram: int = 5) -> list[Future[Ragged]]:
    cuts = [len(texts) * part // parts for part in range(parts + 1)]
    return [client.submit(shingle_sets, texts[first:last], ngram) for first, last in pairwise(cuts)]


def columns(repeats: Repeats) -> list[list[float]]:
    return [column.tolist() for column in (repeats.repeated, repeats.original, repeats.similarity)]


@pytest.mark.parametrize(("templated", "least"), [(False, 400), (True, 250)])
def test_what_goes_and_for_whom_is_what_one_machine_says(client: CountingClient, templated: bool, least: int) -> None:
    texts = corpus(6000, templated=templated)
    before = client.gathered
    found = near_duplicates_on(client, parted(client, texts), 0.8)
    sets = shingle_sets(texts, 5)
    assert columns(found) == columns(near_duplicates(sets, 0.8))
    assert found.repeated.size > least
    assert client.gathered - before < 0.05 * sets.values.nbytes, "shingles or signatures came to the driver"


def test_copies_go_for_what_their_first_one_goes_for(client: CountingClient) -> None:
    text = " ".join(f"w{i}" for i in range(100))
    texts = [text, f"{text} more", f"{text} more", "another text of more words than five", f"{text} more", text]
    found = near_duplicates_on(client, parted(client, texts, parts=3), 0.8)
    assert columns(found)[:2] == [[1, 2, 4, 5], [0, 0, 0, 0]]
    assert columns(found) == columns(near_duplicates(shingle_sets(texts, 5), 0.8))


def variants(name: str, words: Sequence[str], replaced: Sequence[Sequence[int]]) -> list[str]:
    """The words, each time with those at some places replaced by new ones."""
    return [
        " ".join(f"{name}new{k}at{at}" if at in places else word for at, word in enumerate(words))
        for k, places in enumerate(replaced)
    ]


def test_a_crowd_hides_no_near_duplicate(client: CountingClient) -> None:
    """Sixty are alike, but none near; so the one that the last document is near to is among the first of no bucket."""
    chance = random.Random(1)
    texts: list[str] = []
    for cluster in range(8):
        words = [f"c{cluster}w{at}" for at in range(100)]
        crowd = variants(f"c{cluster}", words, [chance.sample(range(100), 12) for _ in range(60)])
        texts += [*crowd, " ".join(words), *variants(f"c{cluster}last", words, [range(5)])]
    found = near_duplicates_on(client, parted(client, texts, ngram=1), 0.8)
    assert columns(found)[:2] == [list(range(61, len(texts), 62)), list(range(60, len(texts), 62))]


def test_the_original_is_the_most_similar_of_all_that_stay(client: CountingClient) -> None:
    """The last document of each cluster is near all nine before it, most of all the last of them; these are not near."""
    texts: list[str] = []
    for cluster in range(20):
        words = [f"c{cluster}w{at}" for at in range(100)]
        places = [range(10 * k, 10 * k + (8 if k == 8 else 10)) for k in range(9)]
        texts += [*variants(f"c{cluster}", words, places), " ".join(words)]
    found = near_duplicates_on(client, parted(client, texts, ngram=1), 0.8)
    assert columns(found)[:2] == [list(range(9, 200, 10)), list(range(8, 200, 10))]
    assert columns(found) == columns(near_duplicates(shingle_sets(texts, 1), 0.8))


@pytest.mark.parametrize("texts", [[], ["", "", "word"]])
def test_fewer_documents_than_parts(client: CountingClient, texts: list[str]) -> None:
    found = near_duplicates_on(client, parted(client, texts), 0.8)
    assert columns(found) == columns(near_duplicates(shingle_sets(texts, 5), 0.8))


def test_no_parts(client: CountingClient) -> None:
    assert columns(near_duplicates_on(client, [], 0.8)) == [[], [], []]


def test_pairs_are_checked_in_as_many_batches_as_need_be(
    client: CountingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = corpus(1500, templated=True)
    monkeypatch.setattr(cluster_module, "BATCH", 6_000)
    found = near_duplicates_on(client, parted(client, texts), 0.8)
    assert columns(found) == columns(near_duplicates(shingle_sets(texts, 5), 0.8))


def test_more_documents_than_pairs_have_room_for(client: CountingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "MOST", 3)
    with pytest.raises(UsageError, match="3 documents cannot be compared at once, only 2: compare fewer"):
        near_duplicates_on(client, parted(client, ["a", "b", "c"]), 0.8)


def keys(client: Client) -> set[str]:
    """What the scheduler knows of."""
    return {str(key) for key in list(tasks_of(client))}


def tasks_of(client: Any) -> dict[Any, Any]:
    tasks: dict[Any, Any] = client.cluster.scheduler.tasks
    return tasks


def test_nothing_stays_on_the_cluster_but_the_parts(client: CountingClient) -> None:
    parts = parted(client, corpus(300, templated=False))
    near_duplicates_on(client, parts, 0.8)
    until = time.monotonic() + 10
    while (left := keys(client) - {str(part.key) for part in parts}) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == set()


def kill_at(client: Any, parts: Sequence[Future[Ragged]], task: str, killed: list[int]) -> None:
    """`kill -9` one of the workers that hold parts, as soon as some result of `task` is there."""
    tasks = tasks_of(client)
    while not any(str(key).startswith(task) and one.state == "memory" for key, one in list(tasks.items())):
        time.sleep(0.005)
    holders = {worker.address for part in parts for worker in tasks[part.key].who_has or ()}
    worker = next(worker for worker in client.cluster.workers.values() if worker.worker_address in holders)
    killed.append(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.parametrize("task", ["_sketch", "_buckets", "_rows"])
def test_a_worker_killed_in_the_middle_changes_nothing(task: str) -> None:
    texts = corpus(6000, templated=True)
    killed: list[int] = []
    with two_workers() as client:
        parts = parted(client, texts)
        killer = threading.Thread(target=kill_at, args=(client, parts, task, killed), daemon=True)
        killer.start()
        found = near_duplicates_on(client, parts, 0.8)
        assert killed, "it was over before"
        killer.join()
    assert columns(found) == columns(near_duplicates(shingle_sets(texts, 5), 0.8))


def test_a_dataset_filtered_on_a_cluster_is_that_of_one_machine(client: CountingClient, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(corpus(3000, templated=False))]
    file.write_text("".join(f"{row}\n" for row in [*rows, "{broken"]))
    configs = parse_filters([], "length,exact,minhash")
    filter_dataset(file, tmp_path / "here", configs)
    report = filter_dataset(file, tmp_path / "there", configs, workers=client.scheduler.address)
    assert report.workers == 2
    assert report.counts.dropped > 100
    for name in ("kept.jsonl", "dropped.parquet", "aside.jsonl"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.workers.CONNECT_SECONDS", "0.3s")
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "One row."}\n')
    with pytest.raises(UsageError, match=r"--cluster: tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        filter_dataset(file, tmp_path / "out", parse_filters([], "exact"), workers="tcp://127.0.0.1:9")
