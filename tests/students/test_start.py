from pathlib import Path

import pytest

from core.errors import UsageError
from core.student_config import StudentConfig
from students.start import REMOVED_FIRST, TEACHER_LAYERS, best_layers, load_start


def test_each_layer_is_removed_once_and_the_first_stays() -> None:
    assert sorted([0, *REMOVED_FIRST]) == list(range(TEACHER_LAYERS))
    for count in range(1, TEACHER_LAYERS + 1):
        layers = best_layers(count)
        assert layers == sorted(set(layers))
        assert (len(layers), layers[0]) == (count, 0)


def test_a_folder_is_a_start(tiny_folder: Path) -> None:
    start = load_start(StudentConfig(start=str(tiny_folder)))
    assert start.model.config.num_hidden_layers == 2
    assert start.base == str(tiny_folder)
    assert start.licence == "other"


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load"):
        load_start(StudentConfig(start=str(tmp_path / "nobody")))
