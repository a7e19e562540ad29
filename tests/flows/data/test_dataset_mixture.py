"""Mixtures on random lineages: sides and minimum shares are kept under every policy."""

import ast
from collections import Counter
from random import Random

import polars as pl
import pytest

from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import held_out_seeds, join_requests
from core.config.recipe import LineageConfig, Recipe
from core.runs.run_dir import RunDir
from flows.data.curated_run import DatasetSplit, create_empty_rows
from flows.data.dataset_mixture import EarlierRelease, MixtureSources, join_sides, mix_dataset, split_own_rows
from flows.data.reference_files import split_into_functions
from flows.data.student_files import load_student_plan
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_creation import create_release
from tests.agents.checks.rows import check_each
from tests.support.lineages import OFF, make_run, write_rows

RECIPE = Recipe.model_validate({"name": "x", "seeds": {"path": "x"}})


def rows_of(name: str, prompts: list[str]) -> pl.DataFrame:
    talk = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": "x"}] for prompt in prompts]
    rows = [{"id": f"{name}-{i:06d}", "messages": turns, "asked": 1} for i, turns in enumerate(talk)]
    return pl.DataFrame(rows, schema=create_empty_rows().schema)


def prompts_of(rows: pl.DataFrame) -> set[str]:
    return {messages[0]["content"] for messages in rows["messages"].to_list()}


def random_past(rng: Random) -> tuple[MixtureSources, list[DatasetSplit]]:
    """Generations, each split with regard to the earlier ones, and real rows; they share some questions."""
    questions = [f"question {i}" for i in range(40)]
    real = rows_of("real", rng.choices(questions, k=rng.randint(0, 8)))
    earlier: list[EarlierRelease] = []
    splits = []
    for generation in range(rng.randint(1, 4)):
        kept = rows_of(f"g{generation}", rng.choices(questions, k=rng.randint(1, 15)))
        splits.append(split_own_rows(kept, MixtureSources(earlier, real), 0.3, RECIPE))
        assert sorted(name for part in splits[-1] for name in part["id"]) == list(kept["id"])
        earlier = [*earlier, EarlierRelease(f"x/{generation}", join_sides(splits[-1]), None)]
    return MixtureSources(earlier[:-1], real), splits


@check_each(range(60))
def test_no_prompt_is_on_both_sides_of_any_mix(number: int) -> None:
    rng = Random(number)
    past, splits = random_past(rng)
    floor = rng.choice([0.0, 0.1, 0.4])
    policy = rng.choice(
        [{"policy": "accumulate"}, {"policy": "replace"}, {"policy": "budget", "budget": rng.randint(2, 50)}]
    )
    config = LineageConfig.model_validate({**policy, "min_real_share": floor, "real": "x"})
    (train, validation), record = mix_dataset(splits[-1], past, config, number)
    assert not prompts_of(train) & prompts_of(validation)
    held_out = set().union(*(prompts_of(one.validation) for one in splits))
    assert not prompts_of(train) & held_out, "a row held out of one generation is held out of all"

    ids = [*train["id"], *validation["id"]]
    assert len(set(ids)) == len(ids) == record.rows
    origins = Counter(name.partition("-")[0] for name in ids)
    assert origins.pop("real", 0) == record.real
    assert origins.pop(f"g{len(splits) - 1}", 0) == record.own
    assert origins == {f"g{name[2:]}": count for name, count in record.earlier.items()}
    if config.budget is None:
        whole = splits if config.policy == "accumulate" else splits[-1:]
        assert record.rows - record.real == sum(len(part) for one in whole for part in one)
    else:
        assert record.rows <= config.budget
        assert not record.rows or record.real_share >= floor, "other rows make room"
    again = mix_dataset(splits[-1], past, config, number)
    assert again.parts.train.equals(train)


@pytest.mark.parametrize(
    ("train", "held_out", "real", "budget", "drawn"),
    [(28, 2, 10, 20, (14, 1, 5)), (39, 1, 0, 10, (9, 1, 0)), (39, 1, 0, 1, (1, 0, 0))],
)
def test_a_budget_draws_each_kind_in_proportion_and_holds_a_row_out_if_possible(
    train: int, held_out: int, real: int, budget: int, drawn: tuple[int, int, int]
) -> None:
    config = LineageConfig.model_validate({"policy": "budget", "budget": budget, "real": "x"})
    kinds = {"own": train, "out": held_out, "real": real}
    own, out, past = (rows_of(name, [f"{name} {i}" for i in range(count)]) for name, count in kinds.items())
    mixes = [mix_dataset(DatasetSplit(own, out), MixtureSources([], past), config, seed).parts for seed in (1, 2)]
    ids = [{*parts.train["id"], *parts.validation["id"]} for parts in mixes]
    for found in ids:
        assert tuple(sum(name.startswith(f"{kind}-") for name in found) for kind in kinds) == drawn
    assert ids[0] != ids[1], "another seed draws others"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"policy": "budget"}, "`budget` \\(rows\\) and"),
        ({"budget": 5}, "go together"),
        ({"min_real_share": 0.3}, "min_real_share needs real rows"),
    ],
)
def test_lineage_keys_that_depend_on_each_other(table: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LineageConfig.model_validate(table)


CODE = '''
import sys

@decorated(
    1
)
async def first(a):
    """Docstring.\f"""
    def inner():
        return 1
    return inner

class Outer:
    class Inner:
        def second(self):
            text = """
not indented
"""
            return text

if sys.argv:
    def third(): return 3
'''


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_functions_and_methods_are_whole_programs(end: str) -> None:
    functions = split_into_functions(CODE.replace("\n", end))
    names = [node.name for code in functions for node in ast.parse(code).body if hasattr(node, "name")]
    assert names == ["first", "second", "third"]
    assert functions[0].startswith("@decorated(")
    assert functions[1].startswith("def second")


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
