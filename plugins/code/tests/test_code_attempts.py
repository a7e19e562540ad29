"""What a teacher writes as code ends no run, attempts and answers are judged by running them, and the checks can be exported."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.sandbox.python_sandbox import sandbox_problem
from core.config.agents import VerifierConfig
from core.sample import Candidate, Message, RejectionReason, Sample, SampleStatus, Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.code.checks.tested_solution import SolutionDraft, code_check, solved_again_check
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))


async def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this check asks nobody")


ADD = "def add(a: int, b: int = 0) -> int:\n    return a + b"
HUGE = "0x" + "f" * 5000
TESTS = "assert add(1, 2) == 3\nassert add(-4, b=9) == 5\nassert add(10) == 10"
FORGED = """
import os
def add(a, b=0):
    os.write(3, b'{"value": {"float": 1, "0x1p1": 2}}')
    os._exit(0)
"""


def coded(solution: str, tests: str, folder: Path, options: str = "") -> list[Sample]:
    reply = {"task": "Return the sum of two whole numbers.", "explanation": "x", "solution": solution, "tests": tests}
    settings = ["samples=2", "task={twists=1.0, kinds={function=1}}", "agents.critic=false", "topology.max_revisions=1"]
    plan = load_recipe_plan("code", [*settings, f"verifiers=[{{type='code', mutants=4{options}}}]"])
    return produce_scripted(plan, ScriptedTeacher(lambda _: json.dumps(reply)), folder)


@pytest.mark.attack(
    "code in a reply with unprintable numbers or defaults, surrogate halves, or a forged sandbox answer",
    "the sample is dropped; run and resumptions continue",
)
@pytest.mark.parametrize(
    ("solution", "tests", "options", "check", "evidence"),
    [
        (f"X = {HUGE}\n{ADD}", TESTS, "", "code_form", "a number has more than 4,000 digits; compute it"),
        (ADD.replace("= 0", f"= {HUGE}"), TESTS, "", "code_form", "a number has more than 4,000 digits; compute it"),
        (ADD, f"assert add({HUGE}, 0) == 1\n{TESTS}", "", "code_form", "line 1: a number has more than 4,000 digits"),
        (ADD, f"add({HUGE})\n{TESTS}", "", "code_form", "line 1: a number has more than 4,000 digits"),
        (
            "def add(a, b=0):\n    raise ValueError('\\ud800 lone')",
            TESTS,
            "",
            "code_passes",
            "raises ValueError: ? lone",
        ),
        (FORGED, TESTS, ", pure=false", "code_passes", "says something that is no answer"),
    ],
    ids=["solution", "default", "test", "statement", "surrogate", "forged"],
)
def test_what_a_teacher_writes_as_code_ends_no_run(
    solution: str, tests: str, options: str, check: str, evidence: str, tmp_path: Path
) -> None:
    samples = coded(solution, tests, tmp_path, options)
    assert [(one.state, one.reason, one.detail) for one in samples] == [
        (SampleStatus.dropped, RejectionReason.verifier, check)
    ] * 2
    for one in samples:
        assert [verdict.revision for verdict in one.verdicts if not verdict.passed] == [0, 1], "it came back as advice"
        assert evidence in one.verdicts[-1].evidence
        assert Sample.model_validate_json(one.model_dump_json()) == one


TASK = {"solution": "def double(n):\n    return 2 * n", "tests": "assert double(2) == 4\nassert double(5) == 10"}


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (code_check, "```python\ndef double(n):\n    return n + n\n```", "def double(n):\n    return n + 2"),
        (solved_again_check, "def double(n):\n    return n + n", "def double(n):\n    return open('x')"),
    ],
)
def test_each_check_judges_an_attempt_as_its_candidate(check: Check, right: str, wrong: str) -> None:
    subject = Subject(
        Seed(id="s-0", data={}), Candidate(messages=[Message(role="user", content="?")], fields=TASK), never
    )
    assert check.attempt is not None
    replies = [check.attempt.reply.model_validate({"solution": solution}) for solution in (right, wrong)]
    judged = [asyncio.run(check.accepts_attempt(subject, reply, check.options())) for reply in replies]
    assert judged == [True, False]


TESTS_OF_DOUBLE = "assert double(2) == 4\nassert double(0) == 0\nassert double(-3) == -6\n"


def test_an_answer_is_compared_with_what_a_sample_has(tmp_path: Path) -> None:
    scoring = pytest.importorskip("plugins.interop.answer_scoring", reason="needs the plugin `interop`")
    checks = scoring.ScoringChecks(
        recipe="mine", family="code", verifiers=[VerifierConfig(type="code")], attempt="code"
    )
    asked = Message(role="user", content="Do it.")
    fields = {"solution": "def double(n):\n    return 2 * n\n", "tests": TESTS_OF_DOUBLE}
    seed = Seed(id="a-000000", data={})
    task = scoring.AnswerTask(
        id=seed.id, seed=seed, messages=[asked], candidate=Candidate(messages=[asked], fields=fields)
    )
    scorer = scoring.AnswerScorer(checks, tmp_path)
    answers = {
        "Add:\n```python\ndef double(n):\n    return n + n\n```": True,
        "```\ndef double(n):\n    return n * n\n```": False,
    }
    assert {answer: asyncio.run(scorer.score(task, answer)).passed for answer in answers} == answers


def test_the_reply_type_keeps_the_title_that_request_digests_contain() -> None:
    assert SolutionDraft.model_json_schema()["title"] == "Solved"


def test_the_critic_is_shown_inputs_for_which_a_second_solution_differs(tmp_path: Path) -> None:
    draft = {"task": "Return the sum of two whole numbers.", "explanation": "x", "solution": ADD, "tests": TESTS}
    other = "def add(a, b=0):\n    return a + b if a in (1, -4, 10) else 0"
    replies = {
        "CodeDraft": draft,
        "Solved": {"solution": other},
        "Review": {"faults": [], "scores": {"task": 5, "solution": 5}, "advice": ""},
    }
    asked: dict[str, str] = {}

    def answer(question: Any) -> str:
        asked[question.contract] = question.messages[-1].content
        return json.dumps(replies[question.contract])

    settings = ["samples=1", "task={kinds={function=1}}", "verifiers=[{type='code', mutants=0}, {type='solved_again'}]"]
    (sample,) = produce_scripted(load_recipe_plan("code", settings), ScriptedTeacher(answer), tmp_path)
    assert "generated inputs another solution differs" in asked["Review"], sample
    assert sample.state == SampleStatus.kept
