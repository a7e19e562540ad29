import gc
import os
import signal
from collections.abc import Iterator

import pytest

# No test may reach a hub or a tracing service, and a run in a test is not the user's.
os.environ.update(HF_HUB_OFFLINE="1", LANGSMITH_TRACING="false", DO_NOT_TRACK="1")
for name in ("PREFECT_API_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "STILLHOUSE_RUNS"):
    os.environ.pop(name, None)
# The matrices here are small, and threads of several processes wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# A shell has the commands that it starts with `&` ignore Ctrl-C, and so would what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.s3", "tests.support.forked", "tests.support.prefect_home"]


GROUP_MARKS = ("slow", "waits")
LONGEST = {"test_docs.py"}
"""Files with tests of a minute and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first, so that at the end no core waits for one of them. (pytest-xdist has groups begin before them.)"""
    for path, mark in {(item.path, mark) for item in items for mark in GROUP_MARKS if item.get_closest_marker(mark)}:
        if f"pytest.mark.{mark}" not in path.read_text():
            raise pytest.UsageError(
                f"{path}: has tests marked {mark}, which `make {mark}` finds by `pytest.mark.{mark}`"
            )
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and all that they import stay to the end: no garbage collection has to visit them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """With ONE_CORE_EACH, a worker of pytest-xdist and all that it starts has a core of its own: llama.cpp and torch then take
    one thread, and wait for no other worker's."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and os.environ.get("ONE_CORE_EACH"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
