"""A run's folder is made once, however many processes want it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from core.errors import RunExists, RunInUse, StillhouseError
from core.runs.run_dir import RunDir, open_run
from flows.recipes.recipe_catalog import hash_recipe_sources, load_recipe_plan


@pytest.mark.parametrize("attempt", range(5))
def test_of_commands_that_start_one_run_at_once_one_makes_it(attempt: int, tmp_path: Path) -> None:
    plan, barrier = load_recipe_plan("smoke"), Barrier(8)
    sources = hash_recipe_sources(plan)

    def start(_: int) -> RunDir | StillhouseError:
        barrier.wait()
        try:
            return open_run(tmp_path, plan.recipe, sources, folder=plan.folder, resume=False)
        except StillhouseError as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(start, range(8)))
    made = [one for one in ended if isinstance(one, RunDir)]
    assert len(made) == 1
    assert {type(one) for one in ended} - {RunDir} <= {RunExists, RunInUse}, ended
    assert made[0].read_recipe() == plan.recipe
    assert made[0].read_manifest().run == made[0].name
