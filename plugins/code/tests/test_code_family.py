import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import prompts
from agents.checks import Subject
from agents.planning.run_plan import RunPlan
from agents.sandbox.python_sandbox import sandbox_problem
from core.sample import RejectionReason, Sample, SampleStatus, Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.code.checks.mutant_runs import CodeOptions
from plugins.code.checks.tested_solution import code_check
from plugins.code.family import KINDS, LEVELS, CodeDraft, CodeFamily, count_decisions
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.scripted_teacher import produce_scripted

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))

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


async def never_ask(*_: Any, **__: Any) -> Any:
    raise AssertionError("this check asks nobody")


def plan_of(*settings: str) -> RunPlan:
    return load_recipe_plan("code", ["teachers.main={model='fake/code'}", *settings])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    fast = "verifiers=[{type='code', cpu_seconds=0.2, mutants=1}, {type='solved_again', cpu_seconds=0.2}]"
    plan = plan_of("samples=28", "task.kinds={function=1}", "topology.max_revisions=0", "agents.critic=false", fast)
    teacher = FakeTeacher(plan.recipe.teachers["main"], "code")
    return produce_scripted(plan, teacher, tmp_path_factory.mktemp("code"))


def test_every_sample_is_kept_or_has_the_check_that_it_failed(samples: list[Sample]) -> None:
    assert len(samples) == 28
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


def test_other_kinds_of_tasks_are_drawn_and_verified(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind != "function"]
    weights = ", ".join(f"{kind}=1" for kind in kinds)
    fast = "verifiers=[{type='code', mutants=0, wall_seconds=200}, {type='solved_again', probes=0, wall_seconds=200}]"
    plan = plan_of(
        f"task.kinds={{{weights}}}", "samples=10", "seed=3", "topology.max_revisions=0", "agents.critic=false", fast
    )
    teacher = FakeTeacher(plan.recipe.teachers["main"], "code")
    made = produce_scripted(plan, teacher, tmp_path)
    kept = {sample.seed.data["kind"]: sample for sample in made if sample.state == SampleStatus.kept}
    assert sorted(kept) == sorted(kinds), [(sample.seed.data["kind"], sample.verdicts) for sample in made]
    shown = {kind: sample.candidate.messages[0].content for kind, sample in kept.items()}
    assert re.search(
        r"Write a class `\w+` with `__init__\(self\) -> None`, `add\(self, value\) -> None`", shown["class"]
    )
    assert "keeper" in shown["class"] or "; " in shown["class"]
    for kind in ("debugging", "edit"):
        fields = kept[kind].candidate.fields
        assert f"```python\n{fields['given']}\n```" in shown[kind]
        assert fields["given"] != fields["solution"]


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


@pytest.mark.parametrize(
    ("solution", "decisions"),
    [
        ("def f(a):\n    return a", 0),
        ("def f(a):\n    return [x for x in a if x and a or x > 2]", 4),
        ("def f(a):\n    while a:\n        if a > 2:\n            a -= 1\n        elif a:\n            a = 0\n    return 1", 3),
        ("def f(a):\n    return 1 if a else 2", 1),
        ("no python(", 0),
    ],
)  # fmt: skip
def test_decisions_of_a_solution_are_counted(solution: str, decisions: int) -> None:
    assert count_decisions(solution) == decisions


def read_examples() -> list[tuple[str, str, dict[str, Any]]]:
    examples = []
    for kind, role in zip(KINDS, CodeFamily.writes, strict=True):
        _, *messages, _ = prompts.load_prompt("code", role, installed=CodeFamily.prompts).messages
        pairs = zip(messages[::2], messages[1::2], strict=True)
        examples += [(kind, asked.content, json.loads(answered.content)) for asked, answered in pairs]
    return examples


@pytest.mark.parametrize(("kind", "asked", "example"), read_examples())
def test_each_example_of_the_prompts_is_what_its_request_asks_for(
    kind: str, asked: str, example: dict[str, Any]
) -> None:
    seed = Seed(id="s", data={"kind": kind})
    draft = CodeFamily().reply_type(seed).model_validate(example)
    candidate = CodeFamily().candidate(seed, draft)
    level = re.search(r"Level: (\w+): (.*)\.\n", asked)
    register = re.search(r"Text: (.*?); (.*)\.\n", asked)
    least = re.search(r"Tests: at least (\d+), as many as the cases need, at most 16\.", asked)
    assert level
    assert register
    assert least
    assert level[2] == LEVELS[level[1]]
    wish, registers = KINDS[kind]
    assert register[2] in registers[register[1]]
    assert f"Function: {wish}" in asked
    few, many = {"easy": (1, 2), "medium": (3, 4), "hard": (5, 99), "long": (8, 99)}[level[1]]
    assert few <= candidate.fields["decisions"] <= many
    asserts = len(re.findall(r"^ *(?:assert|with) ", draft.tests, re.MULTILINE))
    assert int(least[1]) <= asserts <= 16
    options = CodeOptions.model_validate({"mutants": 6, "noticed": 0.9})
    findings = asyncio.run(code_check.findings(Subject(seed, candidate, never_ask), options))
    assert all(finding.passed for finding in findings), findings[-1].evidence
