"""Locks and logs are files of their own folder: nothing is locked, written or read behind a link or a pipe."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest

from agents.calls.call_ledger import CallLedger
from core.errors import RunExists, RunInUse, StillhouseError, StoreError, UsageError
from core.runs.run_dir import RunDir, open_run
from core.storage.bounded_reading import check_plain_folder, empty_folder
from core.storage.file_locks import hold_lock, is_held, lock_file
from flows.recipes.recipe_catalog import load_recipe_plan

Use = Callable[[Path], object]


def take_lock(path: Path) -> None:
    with hold_lock(path, "busy"):
        assert is_held(path)


def take_file(path: Path) -> None:
    with lock_file(path) as file:
        file.write(b"x")


def keep_ledger(path: Path) -> None:
    with CallLedger(path):
        pass


USES = [take_lock, take_file, keep_ledger, is_held]


@pytest.mark.attack(
    "a link or pipe in place of a lock or log, also put there in the middle",
    "not opened",
)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_nothing_behind_a_link_is_opened(kind: str, use: Use, tmp_path: Path) -> None:
    target, path = tmp_path / "outside", tmp_path / "file"
    if kind == "link":
        target.write_text("before\n")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(StoreError, match=r"file: cannot be (written|read|opened): "):
        use(path)
    assert target.exists() == (kind == "link")
    assert kind != "link" or target.read_text() == "before\n"
    path.unlink()
    use(path)  # the control


@pytest.mark.parametrize("name", ["link", ".filters", "student/deep/link"])
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
def test_a_folder_with_a_link_anywhere_is_refused(name: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    run = tmp_path / "run"
    (run / "student/deep").mkdir(parents=True)
    (run / "student/config.json").touch()
    check_plain_folder(run)
    (run / name).symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match=f"{name}: is a link"):
        check_plain_folder(run)


def test_a_link_that_replaces_a_folder_while_it_is_emptied_empties_no_other(tmp_path: Path) -> None:
    outside, folder, other = tmp_path / "outside", tmp_path / "work", tmp_path / "link"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/photo").touch()
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            folder.mkdir()
            (folder / "drops.jsonl").touch()
            folder.rename(tmp_path / "aside")
            other.symlink_to(outside)
            other.rename(folder)
            folder.unlink()
            for file in (tmp_path / "aside").iterdir():
                file.unlink(missing_ok=True)
            (tmp_path / "aside").rmdir()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(3_000):
            with suppress(OSError):
                empty_folder(folder, keep=())
    finally:
        done.set()
        thread.join()
    assert (outside / "deep/photo").exists()
    folder.mkdir()
    for name in ("drops.jsonl", "lock"):
        (folder / name).touch()
    empty_folder(folder, keep=("lock",))
    assert [file.name for file in folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("attempt", range(5))
def test_of_commands_that_start_one_run_at_once_one_makes_it(attempt: int, tmp_path: Path) -> None:
    plan, barrier = load_recipe_plan("smoke"), Barrier(8)
    sources = plan.sources

    def start(_: int) -> RunDir | StillhouseError:
        barrier.wait()
        try:
            return open_run(tmp_path, plan.recipe, sources, folder=plan.folder, resume=False)
        except StillhouseError as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(start, range(8)))
    made = [one for one in ended if isinstance(one, RunDir)]
    assert len(made) == 1
    assert {type(one) for one in ended} - {RunDir} <= {RunExists, RunInUse}, ended
    assert made[0].read_recipe() == plan.recipe
    assert made[0].read_manifest().run == made[0].name
