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

import dask
import pytest
from distributed import Client, Future, LocalCluster

from benchmarks.corpus import PlantedCorpus
from core.errors import UsageError
from filters.duplicates.shingles import build_shingle_sets
from filters.duplicates.similarity_join import find_near_duplicates
from filters.ragged_arrays import DuplicateMatches, RaggedArray
from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
from plugins.scale.dask_near_duplicates import find_near_duplicates_on_cluster
from plugins.scale.dask_workers import PATIENT_RESTARTS
from tests.support.waiting import HANG_SECONDS, wait_until


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
        dask.config.set(PATIENT_RESTARTS),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,  # type: ignore[no-untyped-call]
        CountingClient(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[CountingClient]:
    with two_workers() as client:
        yield client


def corpus(rows: int, *, templated: bool) -> list[str]:
    return [text for texts, _ in PlantedCorpus(rows, templated=templated, seed=5).batches() for text in texts]


def parted(client: Client, texts: Sequence[str], parts: int = 5, ngram: int = 5) -> list[Future[RaggedArray]]:
    cuts = [len(texts) * part // parts for part in range(parts + 1)]
    return [client.submit(build_shingle_sets, texts[first:last], ngram) for first, last in pairwise(cuts)]


def columns(repeats: DuplicateMatches) -> list[list[float]]:
    return [column.tolist() for column in (repeats.repeated, repeats.original, repeats.similarity)]


@pytest.mark.parametrize(("templated", "least"), [(False, 200), (True, 125)])
def test_dropped_documents_and_their_originals_are_those_of_one_machine(
    client: CountingClient, templated: bool, least: int
) -> None:
    texts = corpus(3000, templated=templated)
    before = client.gathered
    found = find_near_duplicates_on_cluster(client, parted(client, texts), 0.8)
    sets = build_shingle_sets(texts, 5)
    assert columns(found) == columns(find_near_duplicates(sets, 0.8))
    assert found.repeated.size > least
    assert client.gathered - before < 0.05 * sets.values.nbytes, "shingles or signatures came to the driver"


def variants(name: str, words: Sequence[str], replaced: Sequence[Sequence[int]]) -> list[str]:
    """The words, each time with those at some places replaced by new ones."""
    return [
        " ".join(f"{name}new{k}at{at}" if at in places else word for at, word in enumerate(words))
        for k, places in enumerate(replaced)
    ]


def test_a_large_bucket_hides_no_near_duplicate(client: CountingClient) -> None:
    """Sixty documents share buckets and are under the threshold; the near-duplicate of the last document comes after them."""
    chance = random.Random(1)
    texts: list[str] = []
    for cluster in range(8):
        words = [f"c{cluster}w{at}" for at in range(100)]
        crowd = variants(f"c{cluster}", words, [chance.sample(range(100), 12) for _ in range(60)])
        texts += [*crowd, " ".join(words), *variants(f"c{cluster}last", words, [range(5)])]
    found = find_near_duplicates_on_cluster(client, parted(client, texts, ngram=1), 0.8)
    assert columns(found)[:2] == [list(range(61, len(texts), 62)), list(range(60, len(texts), 62))]


def test_the_original_is_the_most_similar_kept_document(client: CountingClient) -> None:
    """The last document of each cluster is near all nine before it, most of all the last of them; these are not near."""
    texts: list[str] = []
    for cluster in range(20):
        words = [f"c{cluster}w{at}" for at in range(100)]
        places = [range(10 * k, 10 * k + (8 if k == 8 else 10)) for k in range(9)]
        texts += [*variants(f"c{cluster}", words, places), " ".join(words)]
    found = find_near_duplicates_on_cluster(client, parted(client, texts, ngram=1), 0.8)
    assert columns(found)[:2] == [list(range(9, 200, 10)), list(range(8, 200, 10))]
    assert columns(found) == columns(find_near_duplicates(build_shingle_sets(texts, 1), 0.8))


def keys(client: Client) -> set[str]:
    """What the scheduler knows of."""
    return {str(key) for key in list(tasks_of(client))}


def tasks_of(client: Any) -> dict[Any, Any]:
    tasks: dict[Any, Any] = client.cluster.scheduler.tasks
    return tasks


def test_only_the_parts_stay_on_the_cluster(client: CountingClient) -> None:
    parts = parted(client, corpus(300, templated=False))
    find_near_duplicates_on_cluster(client, parts, 0.8)
    wait_until(lambda: keys(client) == {str(part.key) for part in parts})


def find_worker_pids(client: Any) -> set[int]:
    return {worker.pid for worker in client.cluster.workers.values()}


def kill_at(client: Any, parts: Sequence[Future[RaggedArray]], task: str, killed: list[int]) -> None:
    """`kill -9` one of the workers that hold parts, as soon as some result of `task` is there."""
    tasks = tasks_of(client)
    while not any(str(key).startswith(task) and one.state == "memory" for key, one in list(tasks.items())):
        time.sleep(0.005)
    holders = {worker.address for part in parts for worker in tasks[part.key].who_has or ()}
    worker = next(worker for worker in client.cluster.workers.values() if worker.worker_address in holders)
    killed.append(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def templated() -> tuple[list[str], list[list[float]]]:
    """A corpus, and its near-duplicates as one machine finds them."""
    texts = corpus(6000, templated=True)
    return texts, columns(find_near_duplicates(build_shingle_sets(texts, 5), 0.8))


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.xdist_group("dask")
@pytest.mark.parametrize("task", ["_sketch_part", "_group_into_buckets", "_select_signatures"])
def test_a_worker_killed_in_the_middle_changes_nothing(
    task: str, client: CountingClient, templated: tuple[list[str], list[list[float]]]
) -> None:
    texts, expected = templated
    killed: list[int] = []
    parts = parted(client, texts)
    killer = threading.Thread(target=kill_at, args=(client, parts, task, killed), daemon=True)
    killer.start()
    found = find_near_duplicates_on_cluster(client, parts, 0.8)
    assert killed, "it was over before"
    killer.join()
    assert columns(found) == expected
    wait_until(lambda: killed[0] not in find_worker_pids(client))
    client.wait_for_workers(2, timeout=HANG_SECONDS)  # another one takes its place


def test_a_dataset_filtered_on_a_cluster_equals_that_of_one_machine(client: CountingClient, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(corpus(3000, templated=False))]
    file.write_text("".join(f"{row}\n" for row in [*rows, "{broken"]))
    configs = parse_filter_settings([], "length,exact,minhash")
    filter_dataset(file, tmp_path / "here", configs)
    report = filter_dataset(file, tmp_path / "there", configs, workers=client.scheduler.address)
    assert report.workers == 2
    assert report.counts.dropped > 100
    for name in ("kept.jsonl", "dropped.parquet", "aside.jsonl"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_missing_cluster_is_an_error_of_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.scale.dask_filtering.CONNECT_SECONDS", "0.3s")
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "One row."}\n')
    with pytest.raises(UsageError, match=r"--cluster: tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        filter_dataset(file, tmp_path / "out", parse_filter_settings([], "exact"), workers="tcp://127.0.0.1:9")
