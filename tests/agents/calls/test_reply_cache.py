"""The reply cache: shared by processes, limited in size, and never a reason for a run to end."""

import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agents.calls.reply_cache import CACHE_FILE, MIN_BYTES, open_reply_cache
from core.project_files import PROJECT
from core.sample import TokenUsage
from teachers.base import TeacherReply

REPLY = TeacherReply(
    text="x" * 1000, finished=True, usage=TokenUsage(calls=1, prompt_tokens=5, completion_tokens=2), confidence=0.5
)


def test_a_damaged_file_is_replaced_at_its_opening_and_while_it_is_open(tmp_path: Path) -> None:
    file = tmp_path / CACHE_FILE
    with open_reply_cache(1024, tmp_path) as cache:
        cache.put("a", REPLY)
    file.write_bytes(os.urandom(5000))
    with open_reply_cache(1024, tmp_path) as cache:
        assert cache.get("a") is None
        for number in range(2000):
            cache.put(f"{number}", REPLY)
    with open_reply_cache(1024, tmp_path) as cache:
        with file.open("r+b") as database:
            database.seek(4096 * 3)
            database.write(b"\xff" * 4096 * 200)
        assert [cache.get(f"{number}") for number in range(2000)].count(None) > 0
        cache.put("a", REPLY)
        assert cache.get("a") == REPLY
    with open_reply_cache(1024, tmp_path) as cache:
        assert cache.get("a") == REPLY


def test_a_folder_that_cannot_be_used_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / CACHE_FILE).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "taken"):
        with open_reply_cache(1024, folder) as cache:
            cache.put("a", REPLY)
            assert cache.get("a") is None


def test_a_full_cache_drops_what_was_not_used_for_the_longest_time(tmp_path: Path) -> None:
    with open_reply_cache(1, tmp_path) as cache:
        for number in range(2000):
            cache.put(f"{number}", REPLY)
            assert cache.get("0") == REPLY
        kept = [number for number in range(2000) if cache.get(f"{number}")]
    assert 500 < len(kept) < 1000
    assert kept == [0, *range(2001 - len(kept), 2000)]
    assert MIN_BYTES / 2 < (tmp_path / CACHE_FILE).stat().st_size < MIN_BYTES * 1.1


SHARE = """
import sys
from pathlib import Path
from agents.calls.reply_cache import open_reply_cache
from tests.agents.calls.test_reply_cache import REPLY
own = sys.argv[2]
with open_reply_cache(1024, Path(sys.argv[1])) as cache:
    for number in range(100):
        cache.put(f"{own}-{number}", REPLY)
        cache.put(f"all-{number}", REPLY)
        assert cache.get(f"{own}-{number}") == cache.get(f"all-{number}") == REPLY
"""


def test_processes_that_begin_together_share_a_cache_and_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHARE, str(tmp_path / "cache")]
    started = [subprocess.Popen([*command, f"{number}"], cwd=PROJECT) for number in range(4)]
    assert [one.wait() for one in started] == [0] * 4
    with open_reply_cache(1024, tmp_path / "cache") as cache:
        names = [f"{owner}-{number}" for owner in (*range(4), "all") for number in range(100)]
        assert [name for name in names if cache.get(name) != REPLY] == []


class Touch:
    """A malicious cache entry: unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.attack(
    "a pickle in a stranger's answer cache",
    "refused, requested again",
)
def test_nothing_in_a_cache_folder_is_unpickled(tmp_path: Path) -> None:
    with open_reply_cache(1024, tmp_path) as cache:
        cache.put("request", REPLY)
        assert cache.get("request") == REPLY
    mark = tmp_path / "mark"
    with sqlite3.connect(tmp_path / CACHE_FILE) as database:
        database.execute("UPDATE replies SET reply = ?", (pickle.dumps(Touch(mark)),))
    database.close()
    with open_reply_cache(1024, tmp_path) as cache:
        assert cache.get("request") is None
        assert not mark.exists()
        cache.put("request", REPLY)
        assert cache.get("request") == REPLY
