"""A request of the run, of an earlier release or of a real row is never asked as held out."""

import pytest

from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import held_out_seeds, join_requests
from core.runs.run_dir import RunDir
from flows.data.student_files import load_student_plan
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_creation import create_release
from tests.support.lineages import OFF, make_run, write_rows


@pytest.fixture(scope="module")
def generations(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """A released run and a run on that release, each with the folder of a student."""
    folder = tmp_path_factory.mktemp("generations")
    real = write_rows(folder / "real.jsonl", [{"instruction": "Name a bird.", "output": "A wren."}])
    first = make_run(folder / "runs", OFF, f"lineage.real={real}")
    create_release(first)
    second = make_run(folder / "runs", OFF, f"lineage.real={real}")
    for run in (first, second):
        run.student.mkdir()
        (run.student / "config.json").write_text("{}")
    return first, second


def test_held_out_seeds_start_after_those_of_every_generation(generations: tuple[RunDir, RunDir]) -> None:
    for generation, run in enumerate(generations):
        plan = load_student_plan(run.student, run, run.path.parent)
        assert plan.first_seed == 24 * generation
        longer = RunSeeds(load_recipe_plan("smoke", ["samples=90"]), "x")
        [seed] = held_out_seeds(plan, 1)
        assert seed.data == longer[plan.first_seed + seed.index].data
        assert plan.first_seed + seed.index == 24 * (generation + 1)


def test_requests_of_earlier_releases_and_real_rows_are_used(generations: tuple[RunDir, RunDir]) -> None:
    first, second = generations
    plan = load_student_plan(second.student, second, second.path.parent)
    notes: list[str] = []
    used = collect_used_requests(second, plan, notes.append)
    earlier = load_student_plan(first.student, first, first.path.parent)
    of_first = {join_requests(plan.family.questions(seed) or ()) for seed in RunSeeds(earlier, "x")}
    kept = of_first & used
    assert len(kept) > 5, "those that the first release kept"
    assert "Name a bird." in used
    assert notes == []
    assert collect_used_requests(None, plan, notes.append) == set()
