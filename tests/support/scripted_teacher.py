"""A teacher with replies from a test, and a dispatcher for it; all other parts are real."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agents.calls.agent_context import LocalAgentContext
from agents.calls.budget import BudgetAccount, RunBudget
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import RequestDispatcher
from agents.calls.reply_cache import DisabledReplyCache, ReplyCache
from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from core.config.recipe import Recipe
from core.project_files import PROJECT
from core.sample import Sample, Seed, TokenUsage
from core.stop_signal import StopSignal, UserStop
from teachers.base import ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.rate_limiter import RateLimiter


def build_test_plan(recipe: Recipe | RunPlan) -> RunPlan:
    return recipe if isinstance(recipe, RunPlan) else build_plan(recipe, PROJECT)


Answer = Callable[[TeacherQuestion], str]


def is_revision(asked: str) -> bool:
    """Whether the last message of a question asks for a revision of one constrained answer."""
    return "Note:" in asked or "This answer has faults:" in asked


def estimate_usage(question: TeacherQuestion) -> TokenUsage:
    """Four bytes per token, as in English."""
    return TokenUsage(calls=1, prompt_tokens=len(question.canonical) // 4, completion_tokens=20)


class ScriptedTeacher:
    """Records the questions that it gets."""

    model, slots, manner = "fake/scripted", 4, ""

    def __init__(self, answer: Answer, seconds: float = 0.0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.asked: list[TeacherQuestion] = []

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async with account.charge(question) as charge:
            self.asked.append(question)
            await asyncio.sleep(self.seconds)
            text = self.answer(question)
            charge.usage = estimate_usage(question)
            return TeacherReply(text=text, finished=True, usage=charge.usage, confidence=0.6)

    def release(self) -> None:
        pass


@asynccontextmanager
async def open_scripted_dispatcher(
    recipe: Recipe | RunPlan,
    teacher: Teacher,
    folder: Path,
    *,
    stop: UserStop | None = None,
    cache: ReplyCache | None = None,
) -> AsyncIterator[RequestDispatcher]:
    """A dispatcher with one teacher, called main."""
    stop_signal, plan = StopSignal(stop or threading.Event()), build_test_plan(recipe)
    recipe = plan.recipe
    with RunBudget(recipe.budget, folder / "spend.jsonl", plan.max_calls_per_sample()) as budget:
        account = BudgetAccount(budget, stop_signal, recipe.teachers["main"])
        sample_slots = RateLimiter(round(teacher.slots * 1.5))
        async with plan.family.open_resources(recipe, plan.folder) as resources:
            yield RequestDispatcher(
                {"main": teacher},
                {"main": account},
                cache or DisabledReplyCache(),
                budget,
                stop_signal,
                folder,
                sample_slots,
                resources,
            )


def build_test_seeds(recipe: Recipe | RunPlan) -> Sequence[Seed]:
    return RunSeeds(build_test_plan(recipe), "0" * 16)


def produce_scripted(
    recipe: Recipe | RunPlan, teacher: Teacher, folder: Path, stop: UserStop | None = None,
    *, done: Callable[[Sample], None] = lambda _: None, cache: ReplyCache | None = None,
) -> list[Sample]:  # fmt: skip
    """All samples that could be made, in order; `done` gets each sample, even if the run stops.

    Raises:
        Exception: the reason of the stop signal, if it has one.
    """
    made: list[Sample] = []

    def add_sample(sample: Sample) -> None:
        made.append(sample)
        done(sample)

    async def run() -> None:
        async with open_scripted_dispatcher(recipe, teacher, folder, stop=stop, cache=cache) as dispatcher:
            with CallLedger(folder / "calls.jsonl") as ledger:
                await produce_samples(
                    LocalAgentContext(build_test_plan(recipe), dispatcher, ledger),
                    build_test_seeds(recipe)[:],
                    add_sample,
                )
            if dispatcher.stop_signal.reason:
                raise dispatcher.stop_signal.reason

    asyncio.run(run())
    return sorted(made, key=lambda sample: sample.id)
