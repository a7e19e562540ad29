"""Releasing and going back with processes that die at any moment, and with several at once: real processes, real signals."""

import random
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.runs.lineage import Lineage
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file
from flows.release.release_creation import create_release
from tests.support.forked import FORKS, Program
from tests.support.lineages import OFF, lineage, make_release, make_run
from tests.support.whole_runs import ended

pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.xdist_group("releases")]  # they share two releases


def start(words: list[str], runs: Path, **environment: str) -> Program:
    return FORKS.start(
        "tests.support.run_command", str(lineage(runs).path), *words, "--runs-dir", str(runs), **environment
    )


def content(found: Lineage) -> dict[int, dict[str, str]]:
    """The hashes of all releases in the lineage, each of which is whole and builds on the one before it."""
    return {one.generation: one.manifest.files for one in found.read_verified()}


def check_clean(found: Lineage) -> None:
    """Nothing half-made is left once a command came through."""
    assert [path for path in found.path.rglob("*") if "partial" in path.name] == []


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Runs whose recipe has two releases, and the name of one that builds on the second."""
    runs = tmp_path_factory.mktemp("ready") / "runs"
    for _ in range(2):
        make_release(runs)
    return runs, make_run(runs, OFF).name


@pytest.fixture
def place(ready: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(ready[0].parent, tmp_path / "place") / "runs"


def steps_of(words: list[str], runs: Path, log: Path) -> dict[str, int]:
    """The first of each kind of step that a command takes on the disk, by number."""
    ended(start(words, runs, STEPS=str(log)), 0)
    steps = log.read_text().splitlines()
    return {re.sub(r"\d+", "N", step): number for number, step in reversed(list(enumerate(steps, 1)))}


def test_a_kill_at_every_step_of_a_release_leaves_the_old_lineage_or_the_new_one(
    ready: tuple[Path, str], tmp_path: Path
) -> None:
    def fresh(name: str) -> Path:
        return shutil.copytree(ready[0].parent, tmp_path / name) / "runs"

    words = ["release", ready[1]]
    watched = fresh("watched")
    before = content(lineage(watched))
    kinds = steps_of(words, watched, tmp_path / "steps")
    after = content(lineage(watched))
    assert len(kinds) > 10
    assert list(after) == [0, 1, 2]

    def killed_at(number: int) -> None:
        runs = fresh(f"killed{number}")
        ended(start(words, runs, KILL_AT=str(number)), -signal.SIGKILL)
        assert content(lineage(runs)) in (before, after)
        ended(start(words, runs), 0)
        assert content(lineage(runs)) == after, "the same bytes, number and ancestors"
        check_clean(lineage(runs))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(killed_at, kinds.values()))


@pytest.mark.parametrize(("first", "words"), [(None, ["0"]), (None, []), (0, ["2"])])
def test_a_kill_at_every_step_of_a_rollback_leaves_a_lineage_that_ends_earlier_or_later(
    first: int | None, words: list[str], ready: tuple[Path, str], tmp_path: Path
) -> None:
    whole = shutil.copytree(ready[0].parent, tmp_path / "whole") / "runs"
    create_release(RunDir(whole / ready[1]))
    everything = content(lineage(whole))
    if first is not None:
        lineage(whole).roll_back(first)
    command = ["rollback", "smoke", *words]
    watched = shutil.copytree(whole.parent, tmp_path / "watched") / "runs"
    ended(start(command, watched, STEPS=str(tmp_path / "steps")), 0)
    count = len((tmp_path / "steps").read_text().splitlines())
    wanted = lineage(watched).list_generations()
    assert count >= 2
    for number in range(1, count + 1):
        runs = shutil.copytree(whole.parent, tmp_path / f"killed{number}") / "runs"
        ended(start(command, runs, KILL_AT=str(number)), -signal.SIGKILL)
        left = content(lineage(runs))
        assert list(left) == list(range(len(left))), "a prefix of the lineage"
        assert sorted([*left, *lineage(runs).list_aside()]) == list(everything), "none is lost"
        lineage(runs).roll_back(wanted[-1])
        assert content(lineage(runs)) == {number: everything[number] for number in wanted}


def test_killed_at_random_moments_a_lineage_is_never_broken_and_grows_to_the_end(place: Path, tmp_path: Path) -> None:
    rng, kills, runs = random.Random(), 0, place
    for wanted in range(2, 5):
        run = make_run(runs, OFF, resume=True)
        log = tmp_path / "steps"
        while True:
            log.write_text("")
            process = start(["release", run.name], runs, STEPS=str(log))
            while not log.read_text() and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(rng.uniform(0.0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
            generations = list(content(lineage(runs)))
            assert generations in ([*range(wanted)], [*range(wanted + 1)])
            if len(generations) > wanted:
                break
            if rng.random() < 0.2:
                ended(start(["release", run.name], runs), 0)
                break
    assert kills, "it was killed at all"
    assert list(content(lineage(runs))) == [0, 1, 2, 3, 4]


def test_several_runs_released_at_once_are_one_release_and_the_others_are_refused(place: Path) -> None:
    names = [make_run(place, OFF, f"seed={seed}").name for seed in range(20, 24)]
    processes = [start(["release", name], place) for name in names]
    outputs = [(process.communicate()[0], process.returncode) for process in processes]
    assert sorted(code for _, code in outputs) == [0, 2, 2, 2]
    assert all("builds on smoke/1, but the newest is smoke/2" in out for out, code in outputs if code)
    assert list(content(lineage(place))) == [0, 1, 2]
    check_clean(lineage(place))


def test_one_run_released_several_times_at_once_is_one_release(ready: tuple[Path, str], place: Path) -> None:
    processes = [start(["release", ready[1]], place) for _ in range(4)]
    outputs = [ended(process, 0) for process in processes]
    assert all(out.startswith("release smoke/2") for out in outputs)
    assert sum("was already released" in out for out in outputs) == 3
    assert list(content(lineage(place))) == [0, 1, 2]


def test_releases_and_rollbacks_at_once_leave_a_whole_lineage(ready: tuple[Path, str], place: Path) -> None:
    for _ in range(3):
        commands = [
            ["release", ready[1]],
            ["rollback", "smoke", "0"],
            ["release", ready[1]],
            ["rollback", "smoke", "1"],
        ]
        for process in [start(words, place) for words in commands]:
            ended(process, 0, 2)
        left = content(lineage(place))
        assert list(left) == list(range(len(left)))
        assert sorted([*left, *lineage(place).list_aside()])[:2] == [0, 1]
        check_clean(lineage(place))


def test_a_run_on_a_release_that_is_killed_and_resumed_keeps_its_parent(place: Path) -> None:
    """Another run is released in between: the unfinished run keeps its parent."""
    undisturbed = make_run(place, OFF, "seed=30")
    expected = {file.name: hash_file(file) for file in (undisturbed.path / "samples").glob("*")}
    parent = undisturbed.read_parent()
    shutil.rmtree(undisturbed.path / "samples")
    (undisturbed.shard_file(1)).unlink()
    make_release(place, "seed=31")
    again = make_run(place, OFF, "seed=30", resume=True)
    assert again == undisturbed
    assert again.read_parent() == parent
    assert {file.name: hash_file(file) for file in (again.path / "samples").glob("*")} == expected
