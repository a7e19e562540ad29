"""A run of an earlier version, from before `extra`, `drop` and thinking, is resumed with the replies that it has.

`older_run/` is the stored part of such a run: 13 replies for the first two of its 8 samples, which are not finished.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.checks.registry import BUILT_IN_CHECKS
from agents.families import ALL_FAMILIES
from core.config.base import RecipeTable
from core.config.identity_keys import FIRST_KEYS, LATER_OPTIONS
from core.config.recipe import Recipe, build_recipe_identity, recipe_digest
from core.config.teachers import TeacherConfig
from core.runs.run_dir import RunDir, open_run
from core.sample import Message, ToolCall
from core.storage.atomic_files import read_json
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import hash_recipe_sources, load_recipe_plan
from teachers.base import TeacherQuestion
from teachers.endpoint import EndpointTeacher
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.produce_run import produce_run

OLDER_RUN = Path(__file__).with_name("older_run")
NAME = "older-20ef0026"
FIRST_OPTIONS = {
    "agreement": "agree kind solutions temperature",
    "answer": "absolute kind relative unit",
    "askable": "max_words min_words",
    "code": "cpu_seconds memory_mb min_tests mutants noticed pure wall_seconds",
    "expression": "tolerance",
    "judge": "calibration min_accuracy rubric temperature votes",
    "needs_image": "guesses most_right temperature",
    "novel": "threshold",
    "occurs": "field share text wanted",
    "own_words": "longest max_words",
    "program_fits": "temperature",
    "quotes": "answerable field least max_words min_words most share text",
    "read_again": "agree answer answerable overlap question reads silence temperature text",
    "schema": "field strict wanted",
    "seen_again": "agree looks temperature",
    "solved_again": "cpu_seconds memory_mb pure solutions solved temperature wall_seconds",
    "standalone": "max_words min_words",
    "steps": "",
    "supported": "answer answerable max_words question quotes share",
    "tool_schema": "field strict",
    "votes": "min_agreement temperature votes",
    "well_posed": "max_answer_words max_question_words",
}  # fmt: skip
"""Options of checks that were there from the first."""
OUTSIDE_IDENTITY = {"BudgetConfig", "CacheConfig", "ScaleConfig", "StudentEvaluationConfig", "ParentRelease"}
BASE_TABLES = {"DuplicateFilter", "FilterTable", "ImageTable", "KeepOneFilter"}


def count_calls(run: Path) -> int:
    entries = [json.loads(line) for line in (run / "wip" / "spend.jsonl").read_text().splitlines()]
    return sum(entry[2] for entry in entries if entry[0] == "settled")


def test_an_older_run_is_resumed_and_asks_no_question_twice(tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(OLDER_RUN, folder)
    recipe, stored = str(folder / "older.toml"), RunDir(folder / "runs" / NAME)
    calls = [json.loads(line) for line in stored.ledger_file(0).read_text().splitlines()]
    assert count_calls(stored.path) == len(calls) == 13
    # Only the built-in prompts may have changed since; the run's own replace all that it uses.
    plan, before = load_recipe_plan(recipe), stored.read_sources()
    now = hash_recipe_sources(plan)
    own = [name for name in before if not name.startswith("prompts/") or name.startswith("prompts/own/")]
    assert {name: now[name] for name in own} == {name: before[name] for name in own}
    assert open_run(stored.path.parent, plan.recipe, before, folder=folder, resume=True) == stored
    assert read_json(stored.recipe_file)["identity"] == build_recipe_identity(plan.recipe, before)

    content = read_json(stored.recipe_file)
    content["identity"]["sources"] = now
    renamed = stored.path.rename(stored.path.with_name(f"older-{recipe_digest(plan.recipe, now)[:8]}"))
    (renamed / "recipe.json").write_text(json.dumps(content))
    resumed, _ = produce_run(str(renamed.parent), recipe, ["cache.enabled=false"])
    assert [path.name for path in renamed.parent.iterdir()] == [renamed.name] == [resumed.name]
    answered = {(call["key"].rpartition("/")[0], call["reply"]["text"]) for call in calls}
    used = [
        (f"{sample.seed.index}/{turn.agent}/{turn.revision}/{turn.attempt}", turn.reply)
        for sample in read_finished_samples(resumed)
        for turn in sample.turns
    ]
    assert answered.intersection(used)
    assert count_calls(resumed.path) - 13 == len([turn for turn in used if turn not in answered]) > 0


def list_subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from list_subclasses(subclass)


def test_a_key_that_is_added_later_does_not_count_unless_it_is_set() -> None:
    """Fails for a new table or option that is not listed; a new key of a listed table needs nothing."""
    tables = {kind.__name__: kind for kind in list_subclasses(RecipeTable) if kind.__module__.startswith("core.")}
    assert tables.keys() - OUTSIDE_IDENTITY - BASE_TABLES == FIRST_KEYS.keys()
    for name, keys in FIRST_KEYS.items():
        assert set(keys.split()) <= tables[name].model_fields.keys(), name
    later = {
        check.name: {
            key: field.default
            for key, field in check.options.model_fields.items()
            if key not in FIRST_OPTIONS.get(check.name, "").split()
        }
        for check in (*BUILT_IN_CHECKS, *(check for family in ALL_FAMILIES for check in family.checks))
    }
    assert {name: options for name, options in later.items() if options} == LATER_OPTIONS


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"thinking": "tags"}},
        {"agents": {"generator": {"reasoning": "low"}}},
        {"teachers": {"main": {"model": "fake/writer", "faults": {}, "drop": ["seed"]}}},
        {"teachers": {"main": {"model": "fake/writer", "faults": {}, "extra": {"top_k": 3}}}},
        {"teachers": {"main": {"model": "fake/writer", "faults": {"leak": 0.5}}}},
        {"verifiers": [{"type": "steps", "of": "thinking"}]},
        {"tools": [{"module": "tools.py"}]},
    ],
    ids=str,
)
def test_a_later_key_with_another_value_makes_another_run(change: dict[str, Any]) -> None:
    plain = {"name": "x", "seeds": {"path": "x"}, "teachers": {"main": {"model": "fake/writer", "faults": {}}}}
    plain["verifiers"] = [{"type": "steps", "of": "reasoning"}]
    before, after = (Recipe.model_validate(table) for table in (plain, {**plain, **change}))
    assert recipe_digest(before, {}) != recipe_digest(after, {})


def test_what_identifies_a_reply_is_the_text_of_earlier_versions() -> None:
    call = ToolCall(name="f", arguments={})
    messages = [
        Message(role="user", content="ä"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="1", name="f"),
        Message(role="assistant", content="b", tool_calls=()),
    ]
    asked = TeacherQuestion(
        messages=messages, contract="", json_schema=None, temperature=0, top_p=1, max_tokens=5, seed=0
    )
    assert asked.canonical == (
        '{"messages":[{"role":"user","content":"ä"},{"role":"assistant","content":"","tool_calls":[{"name":"f","arguments":{}}]},'
        '{"role":"tool","content":"1","name":"f"},{"role":"assistant","content":"b"}],"contract":"","json_schema":null,'
        '"temperature":0.0,"top_p":1.0,"max_tokens":5,"seed":0}'
    )
    assert find_manner(model="openai/x", base_url="http://h/v1") == (
        '["json_schema", {}, true, true, {}, "http://h/v1"]'
    )
    assert find_manner(model="local/smollm2-135m", sampling={"top_k": 3}) == (
        '["json_schema", {"top_k": 3}, true, true, {}]'
    )
    assert find_manner(model="openai/x", drop=["seed"]) != find_manner(model="openai/x")
    faults = TeacherConfig.model_validate({"model": "fake/writer", "faults": {"malformed": 0.1, "seconds": 1}})
    assert FakeTeacher(faults, "writer").manner == (
        'writer {"malformed":0.1,"refusal":0.0,"repetition":0.0,"unavailable":0.0,"contradiction":0.0,"drift":0.0,'
        '"omission":0.0,"miscoordination":0.0}'
    )


def find_manner(**table: Any) -> str:
    config = TeacherConfig.model_validate(table)
    return EndpointTeacher(config, "", "x", SimpleNamespace(), config.endpoint).manner  # type: ignore[arg-type]
