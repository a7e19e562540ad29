"""A tiny student that sees, trained once for all tests of a worker."""

from pathlib import Path

import pytest

from core.config.students import StudentConfig


@pytest.fixture(scope="session")
def seeing_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, next to `train.jsonl` with the rows of its training. Tests write exports and evaluations into it, and leave its
    weights as they are.
    """
    from flows.run.dataset_distillation import distill_dataset
    from tests.students.conftest import quiet
    from tests.support.colored_pictures import write_rows

    folder = tmp_path_factory.mktemp("seeing")
    config = save_seeing_start(folder)
    distill_dataset(write_rows(folder / "train.jsonl", 320, 0), folder / "student", config, 3, quiet)
    return folder / "student"


def save_seeing_start(folder: Path) -> StudentConfig:
    """How a tiny student learns to see squares in images of 64 pixels within seconds, with its start in a folder."""
    from tests.students.conftest import saved, tiny_llama, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    return build_seeing_config(saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start"))


def build_seeing_config(start: Path) -> StudentConfig:
    return StudentConfig.model_validate({
        "start": str(start), "epochs": 8, "learning_rate": 3e-3, "batch_size": 16, "max_tokens": 128, "precision": "float32",
        "steps": [{"type": "sight", "patch": 16, "size": 64}],
    })  # fmt: skip
