import pickle
import sqlite3
from pathlib import Path

from agents.calls.reply_cache import open_reply_cache
from core.config.recipe import CacheConfig
from core.sample import TokenUsage
from teachers.base import TeacherReply

REPLY = TeacherReply(text="x", finished=True, usage=TokenUsage(calls=1, prompt_tokens=1, completion_tokens=1))


class Touch:
    """A malicious cache entry: unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_cache_folder_is_unpickled(tmp_path: Path) -> None:
    with open_reply_cache(CacheConfig(), tmp_path / "cache") as answers:
        answers.put("request", REPLY)
        assert answers.get("request") == REPLY
    mark = tmp_path / "mark"
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as database:
        database.execute("UPDATE Cache SET mode = 4, filename = NULL, value = ?", (pickle.dumps(Touch(mark)),))
    database.close()
    with open_reply_cache(CacheConfig(), tmp_path / "cache") as answers:
        assert answers.get("request") is None
        assert not mark.exists()
        answers.put("request", REPLY)
        assert answers.get("request") == REPLY
