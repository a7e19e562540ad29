import asyncio
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from reasoning_gym.factory import DATASETS

from agents.checks import Check, Subject
from agents.checks.base import CheckBroken
from agents.families.base import RecipeFamily, UnusableSeedRow
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.general_panel import build_general_panel
from agents.studies.held_out_evaluation import (
    has_fixed_questions,
    held_out_seeds,
    join_requests,
    require_held_out_seeds,
)
from core.errors import RecipeError, UsageError
from core.sample import SampleStatus, Seed
from flows.recipes.recipe_catalog import load_recipe_plan, open_seeds
from plugins.math.families.reasoning import GYM_TASKS, ProceduralQuestion, ReasoningDraft, ReasoningFamily, solved_check
from teachers.fake.fake_teacher import FakeTeacher
from tests.agents.checks.rows import check_each
from tests.support.scripted_teacher import build_test_seeds, produce_scripted

FAKE = "teachers.main={model='fake/reasoning'}"
SUMS = "task.tasks={basic_arithmetic=1,chain_sum=1}"


def plan_of(*settings: str) -> RunPlan:
    return load_recipe_plan("reasoning", [FAKE, SUMS, "task.questions=300", "samples=120", *settings])


def fault(check: Check, seed: Seed, draft: dict[str, str], **options: object) -> str | None:
    candidate = ReasoningFamily().candidate(seed, ReasoningDraft.model_validate(draft))
    subject = Subject(seed, candidate, None)  # type: ignore[arg-type]
    (finding,) = asyncio.run(check.findings(subject, check.options.model_validate(options)))
    return None if finding.passed else finding.evidence


def test_kept_answers_pass_an_independent_verification(tmp_path: Path) -> None:
    plan = plan_of("topology.max_revisions=0")
    samples = produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "reasoning"), tmp_path)
    details = Counter(sample.detail for sample in samples if sample.state == SampleStatus.dropped)
    assert set(details) == {"solved", "steps"}
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert len(kept) > 40
    for sample in kept:
        term = max(re.findall(r"[-\d(][-+*/() \d]*[\d)]", sample.seed.data["question"]), key=len)
        exact = re.sub(r"\d+", lambda number: f"Fraction({number.group()})", term)
        assert eval(exact, {"Fraction": Fraction}) == Fraction(sample.candidate.fields["answer"])
        assert sample.candidate.messages[-1].content.endswith(f"Answer: {sample.candidate.fields['answer']}")


@check_each(GYM_TASKS)
def test_each_task_takes_its_own_answer_and_no_other(task: str) -> None:
    """The verifiers are another's: the answer itself must pass, and near ones must not."""
    seeds = build_test_seeds(
        load_recipe_plan("reasoning", [FAKE, f"task.tasks={{{task}=1}}", "task.questions=12", "samples=12"])
    )[:]
    for seed in seeds:
        made = seed.data["made"]
        entry = ProceduralQuestion(**made).dataset[made["place"]]
        right = str(entry["answer"])
        assert fault(solved_check, seed, {"reasoning": "x", "answer": right}) is None, (task, right)
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
            assert fault(solved_check, seed, {"reasoning": "x", "answer": wrong}), (task, right, wrong)


@pytest.mark.parametrize(
    ("place", "answer", "right"),
    [
        (0, "0.003173828125", True),
        (0, "13/4096", True),
        (0, "0.003174", True),
        (0, "3.174e-3", True),
        (0, "0.0031739", False),
        (0, "0.00317", True),
        (0, "0.0032", False),
        (0, "13/4095", False),
        (0, "0", False),
        (0, "1/0", False),
        (1, "3.051757812e-05", True),
        (1, "1/32768", True),
        (1, "0.000030517578125", True),
        (1, "0", False),
        (1, "-3.051757812e-05", False),
        (1, "3.051757812e-0500000000", False),
        (1, "1e999999999", False),
        (1, "1e-999999999", False),
    ],
)
def test_a_small_probability_is_not_zero_and_a_rounded_one_is_rounded_right(
    place: int, answer: str, right: bool
) -> None:
    """reasoning-gym's verifier takes whatever is nearer than 1e-4, and computes 10 ** 999999999."""
    made = ProceduralQuestion("coin_flip", {}, 5, 12, place)
    seed = Seed(id="s-0", data={"question": "q", "category": "coin_flip", "made": made._asdict()})
    assert (fault(solved_check, seed, {"reasoning": "x", "answer": answer}) is None) == right


PWNED = "__import__('pathlib').Path('{path}').touch()"


@pytest.mark.attack(
    "a seeds row names a reasoning-gym task that evaluates answers as Python",
    "only comparing verifiers are allowed, checked twice",
)
@pytest.mark.parametrize("task", sorted(set(DATASETS) - set(GYM_TASKS)))
def test_a_seed_of_a_file_names_no_task_whose_verifier_may_run_the_answer(task: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    made = {"task": task, "settings": {}, "seed": 1, "size": 1, "place": 0}
    rows = tmp_path / "mine.jsonl"
    rows.write_text(json.dumps({"question": "q", "category": "c", "made": made}))
    with pytest.raises(
        UsageError, match=rf"mine.jsonl:1: a seed of reasoning needs the key 'made.task' .* not '{task}'"
    ):
        build_test_seeds(load_recipe_plan("reasoning", [FAKE, "task={}", f"seeds.path={rows}"]))
    seed = Seed(id="s-0", data={"question": "q", "category": "c", "made": made})
    with pytest.raises(CheckBroken, match="with one of aiw"):
        fault(solved_check, seed, {"reasoning": "x", "answer": PWNED.format(path=mark)})
    assert not mark.exists()


@pytest.mark.attack(
    "reasoning settings that cost minutes or insert code",
    "bounded settings, fixed operators",
)
@pytest.mark.parametrize(
    "made",
    [
        "gcd",
        {"task": "gcd"},
        {"task": "gcd", "settings": {}, "seed": 1, "size": 1, "place": 1},
        {"task": "gcd", "settings": {}, "seed": "1", "size": 1, "place": 0},
        {"task": ["gcd"], "settings": {}, "seed": 1, "size": 1, "place": 0},
        {"task": "gcd", "settings": {"max_numbers": 10**9}, "seed": 1, "size": 1, "place": 0},
        {"task": "gcd", "settings": {"max_numbers": 2, "x": "a" * 20_000}, "seed": 1, "size": 1, "place": 0},
        {"task": "number_sequence", "settings": {}, "seed": 1, "size": 500, "place": 0},
        {
            "task": "basic_arithmetic",
            "settings": {"operators": ["+__import__('os')+"]},
            "seed": 1,
            "size": 1,
            "place": 0,
        },
    ],
)
def test_a_seed_of_a_file_is_made_within_limits(made: Any) -> None:
    with pytest.raises(UnusableSeedRow):
        ReasoningFamily().condition({"question": "q", "made": made}, ReasoningFamily.options(), Random(0))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["task.tasks={countdown=1}"], "no such task countdown; there are aiw"),
        (["task.tasks={gcd=0}"], "the weight of a task must be 1 or more"),
        (["task.tasks={gcd=1}", "task.settings={gcd={nonsense=3}}"], "settings.gcd: reasoning-gym does not take"),
        (["task.tasks={gcd=1}", "task.settings={gcd={max_numbers=100000}}"], "max_numbers = 100000 is not allowed"),
        (["task.tasks={basic_arithmetic=1}", "task.settings={basic_arithmetic={max_digits=30}}"], "is 6 at most"),
        (["seeds.documents=docs"], "reasoning does not take it; it needs seeds.path"),
    ],
)
def test_impossible_tasks_are_reported(settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        plan_of(*settings)


def test_the_general_panel_asks_nothing_that_a_recipe_trains() -> None:
    gym = ["task.tasks={chain_sum=1,needle_haystack=1}"]
    kinds = {seed.data["kind"] for seed in build_general_panel(load_recipe_plan("reasoning", gym), 200).judged}
    assert not {"products", "needle_haystack"} & kinds
    kinds = {seed.data["kind"] for seed in build_general_panel(load_recipe_plan("arithmetic"), 200).judged}
    assert "products" not in kinds
    assert "needle_haystack" in kinds


def test_a_rare_category_of_the_quotas_is_found(tmp_path: Path) -> None:
    """Its row is the only one of 400, so most passes of a few seeds miss it."""
    rows = [{"question": f"What is {i}?", "answer": "1", "category": "rare" if i == 7 else "other"} for i in range(400)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = load_recipe_plan(
        "reasoning",
        [f"seeds.path={tmp_path}/rows.jsonl", "task={}", "samples=3", 'quotas={by="category",keep={rare=1}}'],
    )
    assert has_fixed_questions(plan)
    assert [seed.data["category"] for seed in held_out_seeds(plan, 1)] == ["rare"]


def test_a_fixed_pool_gives_each_request_once_and_too_few_are_one_sentence(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i}?", "answer": "1"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = load_recipe_plan("reasoning", [f"seeds.path={tmp_path}/rows.jsonl", "task={}", "samples=6"])
    used = {join_requests(plan.family.questions(seed) or ()) for seed in RunSeeds(plan, "x")}
    seeds = require_held_out_seeds(plan, 4, used)
    assert len({seed.data["question"] for seed in seeds} - used) == 4
    with pytest.raises(UsageError, match="4 requests are left that no sample uses, and the evaluation asks 5"):
        require_held_out_seeds(plan, 5, used)


@pytest.mark.parametrize(("settings", "left"), [(["samples=6"], 4), (["samples=60"], 0), (["samples=60", "keep=3"], 7)])
def test_a_run_is_refused_before_it_starts_if_its_samples_leave_too_few_requests(
    settings: list[str], left: int, tmp_path: Path
) -> None:
    rows = [{"question": f"What is {i}?", "answer": "1"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = [f"seeds.path={tmp_path}/rows.jsonl", "task={}", *settings]
    if left:
        open_seeds(load_recipe_plan("reasoning", [*pool, f"student.evaluation.requests={left}"]))
    with pytest.raises(
        UsageError, match=f"{left} requests are left that no sample uses, and the evaluation asks {left + 1}"
    ):
        open_seeds(load_recipe_plan("reasoning", [*pool, f"student.evaluation.requests={left + 1}"]))


def reasoning(answers: list[str]) -> Any:
    family: RecipeFamily = ReasoningFamily()
    seed = Seed(id="x-0", data={"question": "How many?", "expected": "4"})
    assert [message.content for message in family.questions(seed) or ()] == ["How many?"]
    return family.build_answered(seed, answers)
