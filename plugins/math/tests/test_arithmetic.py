"""Operation trees of word problems, what is drawn for a problem, and the examples that show how to write one."""

import re

import pytest

import prompts
from core.config.teachers import TeacherConfig
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.math.checks.worked_steps import find_wrong_sums
from plugins.math.families.arithmetic import ArithmeticFamily, ProblemDraft, expression_check, operations_check
from plugins.math.families.operation_trees import GOALS, TREES, OperationTree, find_tree_fault
from teachers.base import ChargeAccount, TeacherQuestion, TeacherReply
from teachers.fake.fake_teacher import FakeTeacher
from tests.agents.checks.rows import findings_of, subject_of
from tests.support.scripted_teacher import build_test_seeds

FAKE = "teachers.main={model='fake/arithmetic'}"


@pytest.mark.parametrize(
    ("expression", "form", "same"),
    [
        ("5 * 7 + 3 * 12", "a * b + c * d", True),  # the five recorded problems of "multiply twice, then add"
        ("8 * 4 + 7 * 3", "a * b - c * d", False),
        ("1000 - (12 + 18) * 25", "a - (b + c) * d", True),
        ("1000 - (12 + 18) * 25", "(a + b) * c - d", False),
        ("25 * (18 + 12)", "(a + b) * c", True),
        ("25 * 18 + 25 * 12", "(a + b) * c", False),
        ("9 - 4 - 3", "a - b - c", True),
        ("9 - (4 + 3)", "a - b - c", True),
        ("9 - (4 - 3)", "a - b - c", False),
        ("-4 + 9", "a - b", True),
        ("60 / 3 * 2", "a * b / c", True),
        ("60 / (3 * 2)", "a * b / c", False),
        ("80 - 80 * 15 / 100", "a - a * b / 100", True),
        ("(100 - 15) / 100 * 80", "a - a * b / 100", True),
        ("80 * 15 / 100", "a - a * b / 100", False),
        ("80 - 80 * 15 / 50", "a - a * b / 100", False),
        ("3 * 100", "a * b", True),
        ("no expression", "a * b", True),  # another check refuses it
    ],
)
def test_an_expression_has_the_form_that_was_asked_for_or_not(expression: str, form: str, same: bool) -> None:
    assert (find_tree_fault(expression, form) is None) == same


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Seed, OperationTree]]:
    """4,000 seeds of the shipped recipe, each with its tree."""
    trees = {tree.form: tree for tree in TREES}
    seeds = build_test_seeds(load_recipe_plan("arithmetic", [FAKE, "samples=4000"]))[:]
    return [(seed, trees[seed.data["form"]]) for seed in seeds]


def example_pairs() -> list[tuple[str, str]]:
    messages = prompts.load_prompt("arithmetic", "generator", installed=ArithmeticFamily.prompts).messages[1:]
    return [(asked.content, replied.content) for asked, replied in zip(messages[::2], messages[1::2], strict=False)]


@pytest.mark.parametrize(("request_text", "reply"), example_pairs(), ids=lambda text: text[:60])
def test_each_example_passes_the_checks(request_text: str, reply: str) -> None:
    draft = ProblemDraft.model_validate_json(reply)
    data = {
        "form": re.findall(r"Form of the expression: (.+)", request_text)[0],
        "numbers": re.findall(r"Numbers of the story: (.+)", request_text)[0],
    }
    assert data["form"] in {tree.form for tree in TREES}
    assert re.findall(r"that needs \d steps?: (.+)\.\n", request_text)[0] in {tree.words for tree in TREES}
    goal = re.findall(r"The question asks for: (.+)", request_text)[0]
    assert any(goal in GOALS[name].values() for tree in TREES if tree.form == data["form"] for name in tree.goals)
    seed = Seed(id="s-0", data=data)
    subject = subject_of(data, ["a"], ArithmeticFamily().candidate(seed, draft).fields)
    for check in (expression_check, operations_check):
        (finding,) = findings_of(check, subject)
        assert finding.passed, finding.evidence
    assert not list(find_wrong_sums(draft.solution))


class Recording(FakeTeacher):
    """The scripted teacher, and what it was asked for drafts."""

    def __init__(self, config: TeacherConfig, script: str) -> None:
        super().__init__(config, script)
        self.drafts: list[TeacherQuestion] = []

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        if question.contract == "ProblemDraft":
            self.drafts.append(question)
        return await super().reply(question, rank, account)
