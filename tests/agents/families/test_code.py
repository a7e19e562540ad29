import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.families.code import CodeDraft, CodeFamily
from agents.planning.run_plan import RunPlan
from agents.sandbox.python_sandbox import sandbox_problem
from core.errors import RecipeError, UsageError
from core.project_files import PROJECT
from core.sample import RejectionReason, Sample, SampleStatus, Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))

GOOD = {"scores": {"task": 5, "solution": 5}, "faults": [], "advice": "Keep it."}
DRAFT = {
    "task": "Return the sum of two whole numbers.",
    "explanation": "The numbers are added.",
    "solution": "def add(a: int, b: int = 0) -> int:\n    return a + b",
    "tests": "assert add(1, 2) == 3\nassert add(-4, b=9) == 5\nassert add(10) == 10",
}
ORACLE = """
import json, sys
for sample in json.load(sys.stdin):
    names = {}
    exec(sample["solution"], names)
    exec(sample["tests"], names)
    print(sample["id"])
"""
"""Runs solutions and tests as Python does, the plain way that proves nothing by itself, as a second opinion."""


def plan_of(*settings: str) -> RunPlan:
    return load_recipe_plan("code", ["teachers.main={model='fake/code'}", *settings])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    fast = "verifiers=[{type='code', cpu_seconds=0.2, mutants=1}, {type='solved_again', cpu_seconds=0.2}]"
    plan = plan_of("samples=24", "topology.max_revisions=0", "agents.critic=false", fast)
    teacher = FakeTeacher(plan.recipe.teachers["main"], "code")
    return produce_scripted(plan, teacher, tmp_path_factory.mktemp("code"))


def test_every_sample_is_kept_or_has_the_check_that_it_failed(samples: list[Sample]) -> None:
    assert len(samples) == 24
    assert Counter(sample.reason for sample in samples).keys() == {None, RejectionReason.verifier}
    details = Counter(sample.detail for sample in samples if sample.state == SampleStatus.dropped)
    assert details.keys() <= {"code_form", "code_tests", "code_passes", "code_mutants", "solved_again"}
    assert min(details[name] for name in ("code_form", "code_tests", "code_passes", "solved_again")) >= 1
    assert sum(sample.state == SampleStatus.kept for sample in samples) >= 8


def test_kept_solutions_pass_when_python_runs_them(samples: list[Sample]) -> None:
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    rows = [{"id": sample.id, **sample.candidate.fields} for sample in kept]
    done = subprocess.run([sys.executable, "-c", ORACLE], input=json.dumps(rows), capture_output=True, text=True)
    assert done.stdout.split() == [sample.id for sample in kept], done.stderr
    for sample in kept:
        fields, (user, assistant) = sample.candidate.fields, sample.candidate.messages
        asserts = [line for line in fields["tests"].splitlines() if line.startswith("assert ")]
        assert sum(line.removeprefix("assert ").partition(" == ")[0] in user.content for line in asserts) >= 1
        assert not all(line.removeprefix("assert ").partition(" == ")[0] in user.content for line in asserts)
        assert f"```python\n{fields['solution']}\n```" in assistant.content
        wanted = sample.seed.data["function"]
        assert f"Write `{wanted}(" in user.content if wanted else "Write `" in user.content


def test_dropped_samples_have_a_reason_in_words(samples: list[Sample]) -> None:
    for sample in samples:
        for verdict in sample.verdicts:
            assert verdict.evidence
            assert len(verdict.evidence) < 800
        if sample.state == SampleStatus.dropped:
            assert [verdict.check for verdict in sample.verdicts if not verdict.passed] == [sample.detail]


def test_a_fault_comes_back_as_advice_and_the_revision_is_run(tmp_path: Path) -> None:
    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review":
            return json.dumps(GOOD)
        if question.contract == "Solved":
            return json.dumps({"solution": DRAFT["solution"]})
        bug = "Not right" not in question.messages[-1].content
        return json.dumps({**DRAFT, "solution": DRAFT["solution"].replace("+", "-")} if bug else DRAFT)

    teacher = ScriptedTeacher(answer)
    (sample,) = produce_scripted(plan_of("samples=1", "task.twists=1.0"), teacher, tmp_path)
    assert (sample.state, sample.revisions) == (SampleStatus.kept, 1)
    asked = next(q.messages[-1].content for q in teacher.asked if "Not right" in q.messages[-1].content)
    assert "`add(1, 2)` returns -1, and line 1 of the tests wants 3" in asked
    solver = next(q for q in teacher.asked if q.contract == "Solved")
    said = "\n".join(message.content for message in solver.messages)
    assert "Write `add(a: int, b: int=0) -> int`. For example, `add(1, 2)` returns `3`." in said
    assert "return a + b" not in said, "the solver does not see the solution"
    assert "add(-4" not in said, "nor the other tests"


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, "Write `add(a: int, b: int=0) -> int`. For example, `add(1, 2)` returns `3`."),
        ({"tests": "assert add(1, 2) == pytest.approx(3)"}, "returns about `3`."),
        (
            {"tests": f"assert add({'9' * 200}, 2) == 3\nassert add(5, 5) == 10"},
            "For example, `add(5, 5)` returns `10`.",
        ),
        ({"tests": f"assert add({'9' * 200}, 2) == 3"}, "Write `add(a: int, b: int=0) -> int`."),
        ({"tests": "nonsense("}, "Return the sum of two whole numbers."),
        ({"tests": ""}, None),
        ({"solution": "nonsense("}, "Return the sum of two whole numbers."),
        ({"solution": "```python\ndef add(a, b):\n    return a + b\n```"}, "Write `add(a, b)`."),
    ],
)
def test_the_request_contains_the_signature_and_one_example(changes: dict[str, str], asked: str | None) -> None:
    if asked is None:
        with pytest.raises(ValueError, match="tests"):
            CodeDraft.model_validate({**DRAFT, **changes})
        return
    candidate = CodeFamily().candidate(Seed(id="s", data={}), CodeDraft.model_validate({**DRAFT, **changes}))
    assert asked in candidate.messages[0].content
    assert candidate.messages[0].content.count("add(") <= 2
    assert "```python\ndef add(" in candidate.messages[1].content or "nonsense" in candidate.fields["solution"]


def test_tasks_vary_and_are_the_same_each_time() -> None:
    seeds = build_test_seeds(plan_of("samples=200"))[:]
    assert seeds == build_test_seeds(plan_of("samples=200"))[:]
    assert 60 <= sum(bool(seed.data["function"]) for seed in seeds) <= 140
    assert len({json.dumps(seed.data) for seed in seeds}) >= 180
    assert {seed.data["asserts"] for seed in seeds} == {4, 5, 6}
    for seed in seeds:
        named = seed.data["function"]
        assert seed.data["wish"].startswith(f"Define `{named}(") if named else "Choose a name" in seed.data["wish"]


def test_shipped_ideas_are_many_of_every_level_with_signatures_that_python_reads() -> None:
    rows = [json.loads(line) for line in (PROJECT / "data/seeds/code_tasks.jsonl").read_text().splitlines()]
    assert len({row["idea"] for row in rows}) == len(rows) >= 40
    assert len({row["category"] for row in rows}) >= 10
    assert Counter(row["level"] for row in rows).keys() == {"easy", "medium", "hard"}
    for row in rows:
        compile(f"def {row['signature']}:\n    pass", "signature", "exec")


@pytest.mark.parametrize("key", ["idea", "category", "level"])
def test_a_seed_without_a_key_is_named_with_its_line(key: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {"idea": "add", "category": "lists", "level": "easy"}
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(map(json.dumps, [row, {k: v for k, v in row.items() if k != key}])))
    with pytest.raises(UsageError, match=f":2: a seed of code needs the key '{key}'"):
        build_test_seeds(plan_of(f"seeds.path={path}"))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("task.asserts=[1]", "asserts"),
        ("task.twists=2", "twists"),
        ("verifiers=[{type='code', min_tests=1}]", "min_tests"),
        ("verifiers=[{type='code', mutant=3}]", "mutants"),
    ],
)
def test_impossible_options_are_reported(setting: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        plan_of(setting)
