from pathlib import Path

import pytest

from core.errors import UsageError
from core.recipe import StudentConfig
from students.start import load_start, spread


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (2, [0, 29]), (3, [0, 14, 29]), (8, [0, 4, 8, 12, 17, 21, 25, 29]), (30, list(range(30)))],
)
def test_layers_are_spread_from_the_first_to_the_last(count: int, chosen: list[int]) -> None:
    assert spread(count, 30) == chosen


def test_no_layer_is_taken_twice() -> None:
    for count in range(1, 31):
        assert len(set(spread(count, 30))) == count


def test_a_folder_is_a_start(tiny_folder: Path) -> None:
    start = load_start(StudentConfig(start=str(tiny_folder)))
    assert start.model.config.num_hidden_layers == 2
    assert start.base == str(tiny_folder)
    assert start.licence == "other"


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load"):
        load_start(StudentConfig(start=str(tmp_path / "nobody")))
