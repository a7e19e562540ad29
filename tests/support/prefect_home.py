"""The home of Prefect's records that tests share, also those of several pytest processes: one local server serves them all."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.prefect_server.local_server import stop_local_server


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The last process that uses it stops its server."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "prefect-of-tests"
    home.mkdir(exist_ok=True)
    with (home / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield home
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        stop_local_server(home)
