"""Difficulty by attempts of a weaker teacher: which samples are kept, what is asked, and what is refused."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.calls.budget import read_journal
from agents.checks import Check, Subject
from agents.checks.text.second_reader import read_again_check
from agents.families.extraction import complete_check
from agents.planning.run_plan import RunPlan
from core.config.agents import DifficultyConfig
from core.errors import RecipeError
from core.sample import Candidate, Message, RejectionReason, Sample, SampleStatus, Seed
from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_finished_samples, read_kept_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.run_summary import format_run_card
from flows.terminal.sample_history import format_sample_history
from plugins.math.checks.known_answer import answer_check
from plugins.math.checks.solution_agreement import agreement_check
from plugins.math.families.arithmetic import expression_check
from teachers.base import TeacherQuestion
from tests.support.forked import FORKS
from tests.support.lineages import make_run as make_whole_run
from tests.support.produce_run import produce_run
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

QUESTIONS = 300
KINDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Probabilities that the weak teacher solves a question, in turn."""
MEASURED = "difficulty={teacher='main'}"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Question n is answered by n + 1000."""
    rows = [{"question": f"Which number follows question {n}?", "answer": n + 1000} for n in range(QUESTIONS)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def plan_of(seeds: Path, *settings: str) -> RunPlan:
    own = [f"seeds.path={seeds}", "task={}", "verifiers=[{type='answer', kind='exact'}]", f"samples={QUESTIONS}"]
    return load_recipe_plan("reasoning", ["teachers.main={model='fake/reasoning'}", *own, *settings])


def teacher_of(probability: Callable[[int], float]) -> ScriptedTeacher:
    """A generator that is right, and a solver that is right about question n with `probability(n)`, drawn per request."""

    def answer(question: TeacherQuestion) -> str:
        number = int(question.messages[-1].content.rstrip("?").split()[-1])
        right = str(number + 1000)
        if question.contract == "Draft":
            return json.dumps({"reasoning": "It follows.", "answer": right})
        solved = Random(question.canonical).random() < probability(number)
        return json.dumps({"solution": "I think.", "answer": right if solved else "7"})

    return ScriptedTeacher(answer)


def make(plan: RunPlan, folder: Path, probability: Callable[[int], float]) -> tuple[list[Sample], ScriptedTeacher]:
    teacher = teacher_of(probability)
    return produce_scripted(plan, teacher, folder), teacher


def kind_of(sample: Sample) -> float:
    number = int(sample.seed.data["question"].rstrip("?").split()[-1])
    return KINDS[number % len(KINDS)]


def binomial(passed: int, attempts: int, probability: float) -> float:
    return math.comb(attempts, passed) * probability**passed * (1 - probability) ** (attempts - passed)


def test_samples_are_kept_by_the_pass_rate_of_a_weaker_teacher(tmp_path: Path, seeds: Path) -> None:
    """The measured rates are binomial: within four standard deviations of it for each number of passes."""
    samples, teacher = make(plan_of(seeds, MEASURED), tmp_path, lambda n: KINDS[n % len(KINDS)])
    measured = Counter(sum(sample.attempts) for sample in samples)
    shares = Counter(kind_of(sample) for sample in samples)
    for passed in range(6):
        chances = [binomial(passed, 5, kind) for kind, number in shares.items() for _ in range(number)]
        spread = math.sqrt(sum(chance * (1 - chance) for chance in chances))
        assert abs(measured[passed] - sum(chances)) <= 4 * spread, f"{passed} of 5"
    for sample in samples:
        assert len(sample.attempts) == 5
        assert (sample.state is SampleStatus.kept) == (1 <= sum(sample.attempts) <= 4)
        if sample.state is SampleStatus.dropped:
            kind = "too easy" if all(sample.attempts) else "too hard"
            assert (sample.reason, sample.detail.partition(":")[0]) == (RejectionReason.difficulty, kind)
        if kind_of(sample) in (0.0, 1.0):
            assert sample.state is SampleStatus.dropped
    assert len(teacher.asked) == 6 * QUESTIONS
    assert samples[0].usage.calls == 6, "attempts are calls of the sample"
    solver = [turn for turn in samples[0].turns if turn.agent == "solver"]
    assert len({question.seed for question in teacher.asked if question.contract == "Solution"}) == 5 * QUESTIONS
    assert all(solver[0].asked == turn.asked == samples[0].seed.data["question"] for turn in solver)


def test_a_resumed_run_asks_no_attempt_twice(tmp_path: Path, seeds: Path) -> None:
    """All replies are in the ledger after the first pass, so that the second one asks nothing and measures the same."""
    plan = plan_of(seeds, MEASURED, "samples=20")
    first, _ = make(plan, tmp_path, lambda n: KINDS[n % len(KINDS)])
    again, teacher = make(plan, tmp_path, lambda n: KINDS[n % len(KINDS)])
    assert again == first
    assert teacher.asked == []


def test_an_attempt_that_cannot_be_read_fails_after_its_repairs(tmp_path: Path, seeds: Path) -> None:
    scripted = teacher_of(lambda _n: 1.0).answer

    def answer(question: TeacherQuestion) -> str:
        return "not JSON" if question.contract == "Solution" else scripted(question)

    teacher = ScriptedTeacher(answer)
    samples = produce_scripted(plan_of(seeds, MEASURED, "samples=4"), teacher, tmp_path)
    assert {sample.detail for sample in samples} == {"too hard: 0 of 5 attempts passed"}
    assert len(teacher.asked) == 4 * (1 + 5 * 2)


ON_MAIN = "teacher='main'"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["difficulty={teacher='weak'}"], "difficulty.teacher: 'weak' is not in [teachers], which has `main`"),
        (["difficulty={attempts=3}"], "difficulty.teacher"),
        ([f"difficulty={{{ON_MAIN}, attempts=0}}"], "difficulty.attempts"),
        ([f"difficulty={{{ON_MAIN}, attempts=21}}"], "difficulty.attempts"),
        ([f"difficulty={{{ON_MAIN}, wanted=[0.8, 0.2]}}"], "the lower one first"),
        ([f"difficulty={{{ON_MAIN}, wanted=[0.2, 1.2]}}"], "from 0 to 1"),
        ([f"difficulty={{{ON_MAIN}, attempts=1}}"], "attempts = 1 gives no pass rate from 0.2 to 0.8"),
        ([f"difficulty={{{ON_MAIN}, temperature=0}}"], "at temperature = 0 would be one reply"),
        ([MEASURED, "topology.kind='single'"], "topology.kind = 'single' measures none"),
        ([MEASURED, "verifiers=[{type='steps'}]"], "no check of this recipe knows the right answer"),
        ([MEASURED, "quotas={by='pass_rate', keep={easy=5}}"], "'easy' is not a band of pass rates"),
        ([MEASURED, "quotas={by='pass_rate', keep={'0.2-0.6'=5, '0.4-0.8'=5}}"], "overlap"),
        ([MEASURED, "quotas={by='pass_rate', keep={'0.25-0.35'=5}}"], "those of attempts = 5 are 0.2, 0.4, 0.6, 0.8"),
        ([MEASURED, "quotas={by='pass_rate', keep={'0.9-1'=5}}"], "has no wanted pass rate"),
    ],
)
def test_a_recipe_that_cannot_measure_is_refused(seeds: Path, settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError) as refused:
        plan_of(seeds, *settings)
    assert problem in str(refused.value)


@pytest.mark.parametrize("recipe", ["arithmetic", "extraction", "grounded-qa", "reasoning"])
def test_a_family_with_a_known_answer_accepts_the_table(recipe: str) -> None:
    plan = load_recipe_plan(recipe, [MEASURED])
    assert plan.attempt_judge is not None
    assert "verifier" in plan.roles
    assert plan.agents["solver"].max_tokens == plan.recipe.agents.generator.max_tokens


PASSAGE = {"text": "The drum takes 8 kg of cotton.", "question": "How much cotton fits?", "answer": "8 kg"}


@pytest.mark.parametrize(
    ("check", "data", "fields", "right", "wrong"),
    [
        (agreement_check, {}, {"answer": 12.0}, {"answer": 12}, {"answer": "13"}),
        (expression_check, {}, {"answer": 0.5}, {"answer": "1/2"}, {"answer": 5}),
        (answer_check, {"expected": "12 kg"}, {"answer": "12 kg"}, {"answer": "12.0 kg"}, {"answer": "12 g"}),
        (complete_check, {}, {"answer": '{"a":1,"b":null}'}, {"answer": '{"b": null, "a": 1}'}, {"answer": '{"a":1}'}),
        (read_again_check, {"text": PASSAGE["text"]}, PASSAGE, {"found": True, "answer": "8 kg of cotton"},
         {"found": True, "answer": "3 kg"}),
        (read_again_check, {"text": PASSAGE["text"], "answerable": False}, PASSAGE, {"found": False, "answer": ""},
         {"found": True, "answer": "8 kg"}),
    ],
)  # fmt: skip
def test_each_check_judges_an_attempt_as_its_candidate(
    check: Check, data: dict[str, Any], fields: dict[str, Any], right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    candidate = Candidate(messages=[Message(role="user", content="?")], fields=fields)
    subject = Subject(Seed(id="s-0", data=data), candidate, None)  # type: ignore[arg-type]
    assert check.attempt is not None
    extra = {"solution": "So it is."} if "answer" in right and "found" not in right else {}
    replies = [check.attempt.reply.model_validate({**extra, **reply}) for reply in (right, wrong)]
    judged = [asyncio.run(check.accepts_attempt(subject, reply, check.options())) for reply in replies]
    assert judged == [True, False]


@given(
    results=st.lists(st.booleans(), min_size=1, max_size=20),
    bounds=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted),
)
def test_ending_early_never_changes_what_is_kept(results: list[bool], bounds: list[int]) -> None:
    """For any attempts and any bounds, the attempts up to the early end give the same fault as all of them."""
    wanted = (bounds[0] / 20, bounds[1] / 20)
    try:
        difficulty = DifficultyConfig(teacher="weak", attempts=len(results), wanted=wanted)
    except ValueError:
        return
    made: list[bool] = []
    for result in results:
        made.append(result)
        if difficulty.is_settled(made):
            break
    faults = [difficulty.describe_fault(attempts) for attempts in (made, results)]
    assert len({fault and fault.partition(":")[0] for fault in faults}) == 1
    assert faults[0] is not None or made == results
    rate = Fraction(sum(results), len(results))
    assert (faults[1] is None) == (Fraction(bounds[0], 20) <= rate <= Fraction(bounds[1], 20))


WEAK = "teachers.weak={model='fake/reasoning', input_price=1.0, output_price=2.0}"
"""Its solver is right in four of five attempts."""
SETTINGS = [
    "teachers.main={model='fake/reasoning', max_concurrent=4}", WEAK, "difficulty={teacher='weak'}",
    "task.tasks={basic_arithmetic=1}", "task.questions=400", "filters=[]", "shard_size=20", "topology.max_revisions=0",
]  # fmt: skip
BANDS = "quotas={by='pass_rate', keep={'0.2-0.7'=6, '0.7-0.8'=12}}"


def test_quotas_keep_the_first_samples_of_each_band(tmp_path: Path) -> None:
    run, missing = produce_run(str(tmp_path), "reasoning", [*SETTINGS, "samples=120", BANDS])
    assert missing.sentences == []
    samples = list(read_finished_samples(run))
    recipe = run.read_recipe()
    groups = {sample.id: recipe.find_sample_group(sample.seed.data, sample.attempts) for sample in samples}
    kept = [sample for sample in samples if sample.state is SampleStatus.kept]
    assert Counter(groups[sample.id] for sample in kept) == {"0.2-0.7": 6, "0.7-0.8": 12}
    for band, number in recipe.goals.items():
        passed = [s for s in samples if groups[s.id] == band and s.reason in (None, RejectionReason.surplus)]
        assert [sample.state for sample in passed[:number]] == [SampleStatus.kept] * number
    assert len(samples) < 120, "it ends once every band is full"


def test_the_dataset_its_card_and_the_report_have_the_pass_rates(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path, *SETTINGS, "samples=60", "collapse={reference=false}", recipe="reasoning")
    samples = list(read_finished_samples(run))
    verified = [sample for sample in samples if sample.attempts]
    dropped = [sample for sample in verified if sample.reason is RejectionReason.difficulty]
    assert {len(sample.attempts) for sample in verified} == {5}
    assert len(dropped) >= 5, "the fake solver passes all attempts for a third"

    manifest = run.read_manifest()
    record = manifest.agents.difficulty
    assert record is not None
    counted = Counter(sum(sample.attempts) for sample in verified)
    assert record.samples == [counted[passed] for passed in range(6)]
    assert record.kept == [0, *record.samples[1:5], 0]
    assert manifest.funnel[2:4] == [("verified", len(verified)), ("wanted difficulty", len(verified) - len(dropped))]
    easy = sum(sample.detail.startswith("too easy") for sample in dropped)
    assert manifest.reasons["difficulty:too easy"] == easy

    kept = {sample.id: sample.pass_rate for sample in read_kept_samples(run)}
    rows = pl.concat([pl.read_parquet(run.dataset / f"{side}.parquet") for side in ("train", "validation")])
    assert dict(rows.select("id", "pass_rate").iter_rows()) == kept
    lines = (run.dataset / "messages" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["pass_rate"] == kept[json.loads(line)["id"]] for line in lines)
    card = (run.dataset / "README.md").read_text(encoding="utf-8")
    assert f"| 0.8 | {record.samples[4]} | {record.kept[4]} |" in card
    assert "**Teacher** `fake/reasoning`, as generator and solver." in card
    page = run.report_file.read_text(encoding="utf-8")
    assert "Verified samples by the pass rate of <code>fake/reasoning</code> in 5 attempts" in page
    assert f"1: {record.samples[5]}" in format_run_card(manifest, run)
    shown = format_sample_history(dropped[0])
    assert shown.count("\n  solver") == 5
    assert "difficulty  5 of 5 attempts passed: pass pass" in shown
    solver = [turn.usage for sample in samples for turn in sample.turns if turn.agent == "solver"]
    assert len(solver) == 5 * len(verified)
    spent = read_journal(run.spend_file).spent
    assert spent.calls == len(samples) + len(solver), "one draft each, and the attempts"
    assert spent.cost == pytest.approx(sum(u.prompt_tokens + 2 * u.completion_tokens for u in solver) / 1e6)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_attempts(tmp_path: Path) -> None:
    settings = [*SETTINGS, "samples=60", BANDS]
    whole, _ = produce_run(str(tmp_path / "whole"), "reasoning", settings)

    for step in (7, 12, 20):
        runs = tmp_path / f"killed{step}"
        killed = FORKS.start("tests.support.produce_run", str(runs), "reasoning", *settings, KILL_AT=str(step))
        killed.communicate()
        assert killed.returncode == -9
        resumed, _ = produce_run(str(runs), "reasoning", settings)
        kept = [list(read_kept_samples(run)) for run in (resumed, whole)]
        assert kept[0] == kept[1]
        assert [hash_file(resumed.kept_file(n)) for n in resumed.shards()] == [
            hash_file(whole.kept_file(n)) for n in whole.shards()
        ]
        # How many samples are made until enough have passed depends on which end first, so each run is held to its own.
        used = sum(turn.usage.calls for sample in read_finished_samples(resumed) for turn in sample.turns)
        in_flight = 4 + 16
        assert read_journal(resumed.spend_file).spent.calls <= used + in_flight, "no stored reply is asked for again"
