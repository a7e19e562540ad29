import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def share_cores() -> None:
    """A worker of pytest-xdist computes in one thread, since threads of several processes wait for each other. With
    ONE_CORE_EACH, it and all that it starts have a core of their own. Before torch is loaded, which counts the cores then: two
    threads on one core take five times as long as one.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        os.environ["OMP_NUM_THREADS"] = "1"
    if worker and os.environ.get("ONE_CORE_EACH"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


share_cores()

# No test may reach a hub or a tracing service, and a run in a test is not the user's.
os.environ.update(HF_HUB_OFFLINE="1", LANGSMITH_TRACING="false", DO_NOT_TRACK="1")
for name in ("PREFECT_API_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "STILLHOUSE_RUNS"):
    os.environ.pop(name, None)
# The matrices here are small, and threads of several processes wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# A shell has the commands that it starts with `&` ignore Ctrl-C, and so would what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.s3",
    "tests.support.forked",
    "tests.support.prefect_home",
    "tests.support.seeing_students",
]


GROUP_MARKS = ("slow", "waits", "whole")
TESTS, PLUGINS = (Path(__file__).parent / name for name in ("tests", "plugins"))
LONGEST = {"test_docs.py", "test_docs_of_students.py"}
"""Files with tests of a minute and more."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest begin first, so that at the end no core waits for one of them. (pytest-xdist has groups begin before them.)"""
    for path, mark in {(item.path, mark) for item in items for mark in GROUP_MARKS if item.get_closest_marker(mark)}:
        if f"pytest.mark.{mark}" not in path.read_text():
            raise pytest.UsageError(
                f"{path}: has tests marked {mark}, which the Makefile finds by `pytest.mark.{mark}`"
            )
    for item in items:
        if item.path.is_relative_to(PLUGINS) or item.path.parent == TESTS:
            item.add_marker("whole")
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if getattr(config.option, "loadgroup", False):
        for item in items:
            if group := item.get_closest_marker("xdist_group"):
                add_group(item, group.args[0])


def add_group(item: pytest.Item, group: str) -> None:
    """Append a group to a test's id, where the scheduler of pytest-xdist looks for it. pytest-xdist 3.8 writes the id to an
    attribute that pytest 9.2 does not read, so all that a group's tests share would be made by every worker.
    """
    if not item.nodeid.endswith(f"@{group}"):
        item._id = type(item._id).parse(f"{item.nodeid}@{group}")  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and all that they import stay to the end: no garbage collection has to visit them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 10, 10)  # seldom: most tests are too short to leave much
