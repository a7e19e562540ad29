import threading
from pathlib import Path

import pytest

from core.errors import StoreError
from plugins.review.line_log import append_json_line


def test_a_log_that_is_a_link_gets_no_line(tmp_path: Path) -> None:
    target, path = tmp_path / "outside", tmp_path / "log"
    target.write_text("before\n")
    path.symlink_to(target)
    with pytest.raises(StoreError, match="log: cannot be"):
        append_json_line(path, "line")
    assert target.read_text() == "before\n"
    path.unlink()
    append_json_line(path, "line")  # the control


def test_a_link_that_replaces_a_log_while_it_is_written_gets_no_line(tmp_path: Path) -> None:
    target, path, other = tmp_path / "outside", tmp_path / "log", tmp_path / "link"
    target.write_text("before\n")
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            other.symlink_to(target)
            other.replace(path)
            path.unlink()
            path.touch()

    thread = threading.Thread(target=replace)
    thread.start()
    written = refused = 0
    try:
        for _ in range(300):
            try:
                append_json_line(path, "line")
                written += 1
            except StoreError:
                refused += 1
    finally:
        done.set()
        thread.join()
    assert target.read_text() == "before\n"
    assert written + refused == 300
