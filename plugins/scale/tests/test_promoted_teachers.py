"""A promoted student as the teacher of a run elsewhere: a worker of a cluster finds it, another machine fetches it."""

from pathlib import Path

import pytest

from core.storage.atomic_files import hash_file
from flows.data.run_storage import open_run_storage
from flows.release.release_creation import create_release
from flows.run.run_preparation import prepare_run
from tests.flows.release.test_promotion import PROMOTE, finished, gguf, ready
from tests.support.lineages import OFF, SMALL, make_run
from tests.support.promotions import add_student

__all__ = ["finished", "gguf", "ready"]


@pytest.mark.slow
@pytest.mark.waits
def test_another_machine_fetches_the_student(
    url: str, tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "first"))
    run = make_run(f"{url}/runs", OFF, *PROMOTE)
    add_student(run, gguf)
    storage = open_run_storage(f"{url}/runs")
    with storage.lock_lineage("smoke"):
        assert create_release(run).release.promoted
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "second"))
    following = prepare_run("smoke", [*SMALL, OFF, *PROMOTE], f"{url}/runs", resume=False)
    file = following.plan.recipe.generator_teacher.weights_file
    assert file.is_relative_to(tmp_path / "second")
    assert hash_file(file) == hash_file(gguf)
