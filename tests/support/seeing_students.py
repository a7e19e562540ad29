"""A tiny student that sees, trained once for all tests of a worker."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def seeing_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, next to `train.jsonl` with the rows of its training. Tests write exports and evaluations into it, and leave its
    weights as they are.
    """
    from flows.run.dataset_distillation import distill_dataset
    from tests.students.conftest import quiet, save_seeing_start
    from tests.support.colored_pictures import write_rows

    folder = tmp_path_factory.mktemp("seeing")
    config = save_seeing_start(folder)
    distill_dataset(write_rows(folder / "train.jsonl", 320, 0), folder / "student", config, 3, quiet)
    return folder / "student"
