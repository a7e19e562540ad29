import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from agents.calls.budget import BudgetAccount, BudgetExhausted, RunBudget, count_bytes, read_journal
from core.config.recipe import BudgetConfig, Recipe
from core.config.teachers import TeacherConfig
from core.errors import StoreError
from core.sample import Message, Sample, SampleStatus, Spending, TokenUsage
from core.stop_signal import StopSignal
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, estimate_usage, is_revision, produce_scripted

GOOD = json.dumps({"scores": {"sense": 5, "style": 5}, "faults": [], "advice": "keep it"})
PRICES = ["teachers.main.input_price=2.0", "teachers.main.output_price=10.0"]
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="ü" * 300)], contract="x", json_schema={}, temperature=1, top_p=1,
    max_tokens=50, seed=1,
)  # fmt: skip


def recipe_of(*overrides: str) -> Recipe:
    small = ["samples=30", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]']
    return load_recipe_plan("smoke", [*small, *overrides]).recipe


def answer(question: TeacherQuestion) -> str:
    """Invalid first drafts for some samples, so that samples take two or four calls."""
    if question.contract == "Review":
        return GOOD
    asked = question.messages[-1].content
    return json.dumps({"answer": "Bees fly." if is_revision(asked) or len(asked) % 2 else "word " * 60})


def made_under(recipe: Recipe, folder: Path, teacher: ScriptedTeacher) -> list[Sample]:
    """The samples that were made before the budget ended."""
    made: list[Sample] = []
    with contextlib.suppress(BudgetExhausted):
        produce_scripted(recipe, teacher, folder, done=made.append)
    return made


@pytest.mark.parametrize(
    ("model", "most"), [("anthropic/claude-opus-5", 5_000), ("gemini/x", 5_000), ("openai/gpt-4o-mini", 50_000)]
)
@pytest.mark.parametrize("url", ["https://example.org/a.png", "data:image/png;base64," + "A" * 300_000])
def test_an_image_counts_as_the_most_tokens_that_one_has_and_not_as_its_url(
    url: str, model: str, most: int, tmp_path: Path
) -> None:
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        account = BudgetAccount(budget, StopSignal(Event()), TeacherConfig(model=model))
        without = account.tokens(QUESTION)
        images = [message.model_copy(update={"images": (url, url)}) for message in QUESTION.messages]
        more = account.tokens(QUESTION.model_copy(update={"messages": images})) - without
    assert 2 * most < more < 2 * most + 50


@pytest.mark.parametrize("calls", [0, 1, 7, 20, 50, 90])
def test_no_call_exceeds_a_budget_of_calls_and_open_samples_are_finished(calls: int, tmp_path: Path) -> None:
    teacher = ScriptedTeacher(answer, seconds=0.001)
    samples = made_under(recipe_of(f"budget.calls={calls}"), tmp_path, teacher)
    assert len(teacher.asked) <= calls
    spent_on_whole = sum(sample.usage.calls for sample in samples)
    assert len(teacher.asked) - spent_on_whole <= 4, "at most one sample is left in the middle"
    assert spent_on_whole >= calls - 12, "little of the budget is left unused"


def test_resuming_spends_nothing_under_the_same_budget_and_only_the_difference_under_a_larger_budget(
    tmp_path: Path,
) -> None:
    first, second, third = ScriptedTeacher(answer), ScriptedTeacher(answer), ScriptedTeacher(answer)
    made_under(recipe_of("budget.calls=30"), tmp_path, first)
    made_under(recipe_of("budget.calls=30"), tmp_path, second)
    whole = made_under(recipe_of("budget.calls=500"), tmp_path, third)
    assert len(first.asked) + len(second.asked) <= 30
    assert len(whole) == 30
    assert len(first.asked) + len(second.asked) + len(third.asked) == sum(sample.usage.calls for sample in whole)


@pytest.mark.parametrize("limit", ["budget.cost=0.06", "budget.tokens=40000"])
def test_a_budget_of_money_or_tokens_is_kept_and_mostly_used(limit: str, tmp_path: Path) -> None:
    teacher = ScriptedTeacher(answer, seconds=0.001)
    recipe = recipe_of(*PRICES, "samples=200", limit)
    made = made_under(recipe, tmp_path, teacher)
    usages = [estimate_usage(question) for question in teacher.asked]
    tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
    cost = sum(usage.prompt_tokens * 2 + usage.completion_tokens * 10 for usage in usages) / 1e6
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        assert (budget.spent.cost, budget.spent.tokens) == (pytest.approx(cost), tokens)
    used = max(cost / (recipe.budget.cost or 9), tokens / (recipe.budget.tokens or 1e9))
    assert 0.6 < used <= 1
    assert 5 < len(made) < 200


def test_a_call_in_flight_at_a_kill_counts_in_full(tmp_path: Path) -> None:
    journal = tmp_path / "spend.jsonl"

    async def killed() -> None:
        with RunBudget(BudgetConfig(), journal, 4) as budget:
            answered = await budget.reserve(Spending(1, 100, 50, 0.5))
            await budget.reserve(Spending(1, 10, 5, 0.25))
            budget.settle(answered, Spending(1, 80, 20, 0.2))

    asyncio.run(killed())
    with journal.open("a") as file:
        file.write('["aside", 9, 1, 1')  # a kill while the line was written: its call was never sent
    with RunBudget(BudgetConfig(), journal, 4) as budget:
        spent = budget.spent
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens, spent.cost) == (2, 90, 25, pytest.approx(0.45))
    assert spent.uncounted == read_journal(journal).spent.uncounted == 1


def test_spending_outside_the_journal_counts_against_the_limits(tmp_path: Path) -> None:
    async def reserve(elsewhere: Spending) -> None:
        with RunBudget(BudgetConfig(calls=5, cost=1.0), tmp_path / "spend.jsonl", 4, elsewhere) as budget:
            await budget.reserve(Spending(1, 1, 1, 0.25))

    asyncio.run(reserve(Spending(3, 0, 0, 0.5)))
    with pytest.raises(BudgetExhausted, match=r"budget.calls = 5 is reached: 5 spent"):
        asyncio.run(reserve(Spending(4)))
    with pytest.raises(BudgetExhausted, match=r"budget.cost = 1 is reached: 0.8500 spent"):
        asyncio.run(reserve(Spending(0, 0, 0, 0.6)))


def test_cached_and_thinking_tokens_are_journaled_and_older_journals_are_read(tmp_path: Path) -> None:
    journal = tmp_path / "spend.jsonl"
    journal.write_text('["settled", -1, 2, 100, 50, 0.5, 7.0]\n["aside", 3, 1, 10, 5, 0.25, 8.0]\n')
    teacher = TeacherConfig(model="fake/x", input_price=2.0, output_price=10.0, cached_price=0.5, cache_write_price=3.0)
    used = TokenUsage(
        calls=1, prompt_tokens=300, completion_tokens=40, cached_tokens=200, cache_write_tokens=20, reasoning_tokens=30
    )

    async def charge() -> None:
        with RunBudget(BudgetConfig(), journal, 4) as budget:
            account = BudgetAccount(budget, StopSignal(Event()), teacher)
            async with account.charge(QUESTION) as call:
                call.usage = used

    asyncio.run(charge())
    spent = read_journal(journal).spent
    assert (spent.calls, spent.cached_tokens, spent.reasoning_tokens) == (4, 200, 30)
    assert spent.cost == pytest.approx(0.75 + (80 * 2 + 200 * 0.5 + 20 * 3 + 40 * 10) / 1e6)
    assert spent.saved == pytest.approx((200 * 1.5 - 20 * 1) / 1e6)
    assert spent.seconds >= 8.0


def test_a_long_journal_is_compacted_without_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.calls.budget.COMPACT_LINES", 10)

    async def run() -> None:
        with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 4) as budget:
            await budget.reserve(Spending(1, 7, 7))
            for _ in range(50):
                budget.settle(await budget.reserve(Spending(1, 9, 9)), Spending(1, 3, 2))

    asyncio.run(run())
    assert len((tmp_path / "spend.jsonl").read_text().splitlines()) <= 10
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 4) as budget:
        assert (budget.spent.calls, budget.spent.tokens) == (51, 50 * 5 + 14)


def test_after_its_minutes_no_call_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, again = ScriptedTeacher(answer, seconds=0.001), ScriptedTeacher(answer)
    monkeypatch.setattr("agents.calls.budget.monotonic", lambda: 3.0 * len(teacher.asked))  # a call takes three seconds
    made = made_under(recipe_of("samples=400", "budget.minutes=2"), tmp_path, teacher)
    assert 0 < len(made) < 40
    assert len(teacher.asked) <= 40 + teacher.slots
    made_under(recipe_of("samples=400", "budget.minutes=2"), tmp_path, again)
    assert again.asked == []


def test_the_cost_of_a_prompt_is_never_underestimated(tmp_path: Path) -> None:
    """Before and after the teacher's tokens per byte are measured."""

    async def run() -> list[int]:
        estimates = []
        with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 4) as budget:
            account = BudgetAccount(budget, StopSignal(Event()), TeacherConfig(model="fake/x"))
            for _ in range(30):
                estimates.append(account.tokens(QUESTION))
                async with account.charge(QUESTION) as charge:
                    charge.usage = TokenUsage(calls=1, prompt_tokens=200, completion_tokens=10)
        return estimates

    estimates = asyncio.run(run())
    assert estimates[0] >= 600 + 50
    assert 200 + 50 <= estimates[-1] < estimates[0]


def test_a_lost_call_counts_at_its_maximum_cost(tmp_path: Path) -> None:
    async def lost() -> tuple[int, Spending]:
        with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 4) as budget:
            teacher = TeacherConfig(model="fake/x", input_price=2.0, output_price=10.0)
            account = BudgetAccount(budget, StopSignal(Event()), teacher)
            with contextlib.suppress(ConnectionError):
                async with account.charge(QUESTION):
                    raise ConnectionError
            return account.tokens(QUESTION), budget.spent

    most, spent = asyncio.run(lost())
    assert (spent.calls, spent.tokens, spent.completion_tokens) == (1, most, 50)
    assert spent.cost == pytest.approx((2 * (most - 50) + 10 * 50) / 1e6)


def test_a_request_that_outlives_its_process_is_charged_once(tmp_path: Path) -> None:
    """At its maximum while it is unknown, also to the next process; and at its actual cost once its reply comes."""
    half = TeacherConfig(model="openai/x", input_price=2.0, output_price=10.0, batch=True)

    async def work(calls: int, usage: TokenUsage | None) -> tuple[Spending, Spending]:
        with RunBudget(BudgetConfig(calls=calls), tmp_path / "spend.jsonl", 1) as budget:
            before, account = budget.spent, BudgetAccount(budget, StopSignal(Event()), half)
            async with budget.admit_sample(), account.charge(QUESTION, "request") as charge:
                charge.usage = usage
                if usage is None:
                    charge.keep()
            return before, budget.spent

    most = asyncio.run(work(1, None))[1]
    assert (most.calls, most.completion_tokens) == (1, 50)
    for _ in range(2):
        assert [replace(spent, seconds=0) for spent in asyncio.run(work(1, None))] == [replace(most, seconds=0)] * 2
    before, spent = asyncio.run(work(1, TokenUsage(calls=1, prompt_tokens=100, completion_tokens=10)))
    assert before.tokens == most.tokens
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (1, 100, 10)
    assert spent.cost == pytest.approx((100 * 2.0 + 10 * 10.0) / 2 / 1e6)
    with pytest.raises(BudgetExhausted):
        asyncio.run(work(1, None))


def test_the_error_for_an_unreadable_journal_names_it(tmp_path: Path) -> None:
    (tmp_path / "spend.jsonl").mkdir()
    with (
        pytest.raises(StoreError, match=r"spend\.jsonl: cannot be read"),
        RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1),
    ):
        pass


def test_a_changed_question_is_counted_by_its_own_text() -> None:
    """As the second of two calls, which has the thoughts of the first in it."""
    before = count_bytes(QUESTION)
    longer = QUESTION.model_copy(update={"messages": [*QUESTION.messages, Message(role="user", content="x" * 1000)]})
    assert count_bytes(longer) > before + 1000


def test_spending_and_samples_add_up(tmp_path: Path) -> None:
    samples = produce_scripted(recipe_of(), ScriptedTeacher(answer), tmp_path)
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        assert budget.spent.calls == sum(sample.usage.calls for sample in samples)
    assert {sample.state for sample in samples} == {SampleStatus.kept}
