import asyncio
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.checks.answer import answer
from agents.checks.base import CheckBroken
from agents.checks.steps import wrong_sums
from agents.families.reasoning import TASKS, Draft, Made, Reasoning, solved
from agents.plan import Plan
from agents.teachers.fake import FakeTeacher
from core.errors import RecipeError, UsageError
from core.recipe import PROJECT
from core.sample import Reason, Seed, State
from flows.recipes import load
from tests.scripted import produced, seeds_of

GOLDEN = PROJECT / "tests" / "agents" / "checks" / "golden"
FAKE = "teachers.main={model='fake/reasoning'}"
SUMS = "task.tasks={basic_arithmetic=1,chain_sum=1}"


def plan_of(*settings: str) -> Plan:
    return load("reasoning", [FAKE, SUMS, "task.questions=300", "samples=120", *settings])


def golden(name: str) -> list[Any]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def fault(check: Check, seed: Seed, draft: dict[str, str], **options: object) -> str | None:
    candidate = Reasoning().candidate(seed, Draft.model_validate(draft))
    subject = Subject(seed, candidate, None)  # type: ignore[arg-type]
    (finding,) = asyncio.run(check.findings(subject, check.options.model_validate(options)))
    return None if finding.passed else finding.evidence


def test_questions_are_of_every_task_by_its_weight_and_the_same_each_time() -> None:
    plan = load("reasoning", [FAKE, "task.tasks={gcd=3,lcm=1}", "task.questions=80", "samples=80"])
    seeds = seeds_of(plan)[:]
    assert seeds == seeds_of(plan)[:]
    assert Counter(seed.data["category"] for seed in seeds) == {"gcd": 60, "lcm": 20}
    assert len({seed.data["question"] for seed in seeds}) > 70
    other = seeds_of(
        load("reasoning", [FAKE, "task.tasks={gcd=3,lcm=1}", "task.questions=80", "samples=80", "seed=8"])
    )[:]
    assert {seed.data["question"] for seed in other} != {seed.data["question"] for seed in seeds}


def test_what_is_kept_is_right_by_our_own_reckoning(tmp_path: Path) -> None:
    plan = plan_of("topology.max_revisions=0")
    samples = produced(plan, FakeTeacher(plan.recipe.teachers["main"], "reasoning"), tmp_path)
    details = Counter(sample.detail for sample in samples if sample.state == State.dropped)
    assert set(details) == {"solved", "steps"}
    kept = [sample for sample in samples if sample.state == State.kept]
    assert len(kept) > 40
    for sample in kept:
        term = max(re.findall(r"[-\d(][-+*/() \d]*[\d)]", sample.seed.data["question"]), key=len)
        exact = re.sub(r"\d+", lambda number: f"Fraction({number.group()})", term)
        assert eval(exact, {"Fraction": Fraction}) == Fraction(sample.candidate.fields["answer"])
        assert sample.candidate.messages[-1].content.endswith(f"Answer: {sample.candidate.fields['answer']}")


@pytest.mark.parametrize("task", TASKS)
def test_each_task_takes_its_own_answer_and_no_other(task: str) -> None:
    """The verifiers are another's: the answer itself must pass, and near ones must not."""
    seeds = seeds_of(load("reasoning", [FAKE, f"task.tasks={{{task}=1}}", "task.questions=12", "samples=12"]))[:]
    for seed in seeds:
        made = seed.data["made"]
        entry = Made(**made).dataset[made["place"]]
        right = str(entry["answer"])
        assert fault(solved, seed, {"reasoning": "x", "answer": right}) is None, (task, right)
        others = {
            f"{right} or not",
            f"not {right}",
            f"{right}, {right} or so",
            f"x{right}",
            "It is what it is.",
            "{}",
            "nan",
            "inf",
        }
        if re.fullmatch(r"-?\d+", right):
            others |= {str(int(right) + 1), str(int(right) - 1), f"{right}1", f"{right}.5", f"-{right}x"}
        for wrong in others:
            assert fault(solved, seed, {"reasoning": "x", "answer": wrong}), (task, right, wrong)


def test_a_users_own_questions_are_held_to_their_answers(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [f"seeds.path={tmp_path}/mine.jsonl", "task={}", "topology.max_revisions=0"]
    plan = plan_of(*own, 'verifiers=[{type="answer",kind="numeric"},{type="agreement",solutions=3,agree=2}]')
    samples = produced(plan, FakeTeacher(plan.recipe.teachers["main"], "reasoning"), tmp_path)
    kept = [sample for sample in samples if sample.state == State.kept]
    assert kept
    for sample in kept:
        number = int(re.findall(r"\d+", sample.seed.data["question"])[0])
        assert float(sample.candidate.fields["answer"]) == 2 * number
    assert {sample.detail for sample in samples if sample.reason == Reason.verifier} == {"answer", "agreement"}


@pytest.mark.parametrize("case", golden("steps"), ids=lambda case: case["text"][:50])
def test_golden_steps(case: dict[str, Any]) -> None:
    found = next(wrong_sums(case["text"]), None)
    assert (found is None) == case["passes"], found


@pytest.mark.parametrize("case", [c for c in golden("answers") if c["kind"] in ("exact", "numeric", "symbolic")][:200])
def test_golden_answers_hold_for_the_check_too(case: dict[str, Any]) -> None:
    seed = Seed(id="s-0", data={"question": "?", "expected": case["expected"]})
    given = case["given"]
    if not given:
        pytest.skip("a contract takes no empty answer")
    options = {key: case[key] for key in ("unit",) if case.get(key)} | case.get("tolerance", {})
    found = fault(answer, seed, {"reasoning": "x", "answer": given}, kind=case["kind"], **options)
    assert (found is None) <= case["equal"], found


@pytest.mark.parametrize(
    ("kind", "expected", "problem"),
    [
        ("symbolic", "twelve (", "as symbolic, the expected answer: .*; mend the seed"),
        ("exact", None, "the expected answer is null; mend the seed"),
    ],
)
def test_a_seed_that_no_answer_can_equal_is_told(kind: str, expected: str | None, problem: str) -> None:
    seed = Seed(id="s-0", data={"question": "?", "expected": expected})
    with pytest.raises(CheckBroken, match=problem):
        fault(answer, seed, {"reasoning": "x", "answer": str(expected)}, kind=kind)


def test_a_wrong_number_is_told_from_a_seed_without_one() -> None:
    found = [
        fault(answer, Seed(id="s-0", data={"question": "?", "expected": text}), {"reasoning": "x", "answer": "twelve"})
        for text in ("twelve", "12")
    ]
    blamed = "as numeric, the expected answer: 'twelve' is not a number; mend the seed, or choose another kind"
    assert found == [blamed, "the answer 'twelve' is wrong"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["task.tasks={countdown=1}"], "no such task countdown; there are aiw"),
        (["task.tasks={gcd=0}"], "the weight of a task must be 1 or more"),
        (["task.tasks={gcd=1}", "task.settings={gcd={nonsense=3}}"], "settings.gcd: reasoning-gym does not take"),
        (["seeds.documents=docs"], "reasoning does not take it; it needs seeds.path"),
    ],
)
def test_what_cannot_be_made_is_told(settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        plan_of(*settings)


def test_no_tasks_and_no_file_is_told() -> None:
    with pytest.raises(UsageError, match="reasoning: has no seeds"):
        seeds_of(load("reasoning", [FAKE, "task={}"]))
