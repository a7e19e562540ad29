"""Held-out evaluation: a model answers the questions of unused seeds in plain text, as a student is trained, and the recipe's
checks judge the answers: one attempt, no revision, no critic. The teacher is also asked as a run prompts it. Stores nothing.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agents.calls.agent_context import LocalAgentContext, open_scratch_context
from agents.calls.budget import BudgetExhausted
from agents.checks.base import CheckBroken, Subject, refuse_to_ask, valid_text
from agents.checks.registry import BoundCheck
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.reply_schema import Finding, InvalidReply
from core.config.recipe import BudgetConfig, Recipe
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.sample import NOTHING_SPENT, Candidate, Message, Sample, SampleStatus, Seed, Spending, text_digest
from core.stop_signal import RunStopped, UserStop
from core.thinking import find_thinking_tag
from core.tracing import find_trace
from teachers.base import PROCESSOR_SECONDS, CallFailed, CallKey, TeacherQuestion, TeacherReply

EVALUATED_TEACHER = "examined"
"""The name of the evaluated model, next to the recipe's own teachers, which checks may ask."""
PROBED_SEEDS = 50
"""Seeds searched per wanted seed, if quotas exclude some."""


class HeldOutResult(NamedTuple):
    """The result for one seed."""

    seed: int
    """The index of the seed."""
    question: str
    """All turns of the user."""
    answer: str
    """All answers of the model."""
    fault: str | None
    """The check that did not pass, or `no answer`, `cut off` or `contract`; None if all passed."""
    evidence: str
    replies: tuple[TeacherReply, ...]
    """The replies, turn by turn, with their tokens."""
    candidate: Candidate | None = None
    """The answers as the checks saw them; None if no check ran."""


class ServedReplies(NamedTuple):
    """The replies of a model that were not in the cache."""

    number: int
    seconds: float
    """Of processors of this machine, in the model's server; 0 for an endpoint."""


def join_requests(messages: Sequence[Message]) -> str:
    """All turns of the user, a line each."""
    return "\n".join(message.content for message in messages if message.role == "user")


def held_out_seeds(plan: RunPlan, number: int, used_requests: Collection[str] = ()) -> list[Seed]:
    """The first `number` seeds after the last that a run of this recipe can use, without a plugin's choice among them. If there
    are fewer rows of seeds than samples, the rows repeat and only the drawn conditions are new.

    A seed whose questions are in `used_requests`, in the form of `join_requests`, is left out: conditions may be drawn twice.

    Raises:
        UsageError: if a seed cannot be made.
    """
    return _find_unused_seeds(plan, number, used_requests, RunSeeds(plan, "held0out"))


def _find_unused_seeds(plan: RunPlan, number: int, used_requests: Collection[str], rows: RunSeeds) -> list[Seed]:
    recipe = plan.recipe
    first = -(-recipe.samples // recipe.answers_per_seed)
    probed = max(number * PROBED_SEEDS, 2 * len(rows.rows))  # any two passes' worth of seeds has every row
    longer = plan.with_recipe(samples=first + probed, answers_per_seed=1)
    seeds = rows.for_run(longer, "held0out").without_choice()
    unused = (seeds[i] for i in range(first, len(seeds)))
    if recipe.groups_by_seed:
        unused = (seed for seed in unused if recipe.find_group(seed.data) in recipe.goals)
    return list(islice(_skip_known_requests(plan, unused, used_requests), number))


def _skip_known_requests(plan: RunPlan, seeds: Iterable[Seed], used_requests: Collection[str]) -> Iterator[Seed]:
    """The seeds whose request is neither used nor that of an earlier seed; all, if seeds determine no request."""
    known = set(used_requests)
    for seed in seeds:
        questions = plan.family.questions(seed)
        request = None if questions is None else join_requests(questions)
        if request is None or request not in known:
            yield seed
        if request is not None:
            known.add(request)


def require_held_out_seeds(plan: RunPlan, number: int, used_requests: Collection[str] = ()) -> list[Seed]:
    """`held_out_seeds`. Raises UsageError if there are fewer than `number`."""
    return _require_seeds(plan, number, used_requests, RunSeeds(plan, "held0out"))


def _require_seeds(plan: RunPlan, number: int, used_requests: Collection[str], rows: RunSeeds) -> list[Seed]:
    seeds = _find_unused_seeds(plan, number, used_requests, rows)
    if len(seeds) < number:
        raise UsageError(
            f"{plan.recipe.name}: {len(seeds)} requests are left that no sample uses, and the evaluation asks {number}; "
            "ask fewer, or give the recipe more seeds"
        )
    return seeds


def has_fixed_questions(plan: RunPlan) -> bool:
    """Whether the seeds alone determine the questions."""
    return plan.family.questions(RunSeeds(plan, "held0out")[0]) is not None


def check_evaluation_requests(plan: RunPlan, seeds: RunSeeds) -> None:
    """Raises UsageError if the recipe asks for an evaluation of the student and its `seeds` alone ask no question."""
    student = plan.recipe.student
    if student is None or student.evaluation is None:
        return
    if plan.family.questions(seeds[0]) is None:
        if plan.recipe.lineage.promote:
            raise UsageError(
                f"lineage.promote: in {plan.family.name} the generator writes the questions, so seeds alone ask no question, and "
                "a student cannot be compared with its teacher; leave promote and student.evaluation out"
            )
        raise UsageError(
            f"student.evaluation: in {plan.family.name} the generator writes the questions, so seeds alone "
            "ask no question; leave the table out"
        )
    times = 1 + student.chooses_weights  # on other requests
    _require_seeds(plan, times * student.evaluation.requests, _predict_used_requests(plan, seeds), seeds)


def _predict_used_requests(plan: RunPlan, seeds: RunSeeds) -> set[str]:
    """The requests that a run of this recipe uses at least: those of as many samples as it keeps, or of all its samples if it
    has no goal. Where conditions change the requests, samples after two passes over the rows are not counted.
    """
    recipe = plan.recipe
    fewest = sum(recipe.goals.values()) or recipe.samples
    if recipe.answers_per_seed > 1:
        seeds = seeds.for_run(plan.with_recipe(answers_per_seed=1), "held0out")
        fewest = -(-fewest // recipe.answers_per_seed)
    wanted = (seeds[i] for i in range(len(seeds)))
    if recipe.groups_by_seed:
        wanted = (seed for seed in wanted if recipe.find_group(seed.data) in recipe.goals)
    questions = map(plan.family.questions, islice(wanted, min(fewest, 2 * len(seeds.rows))))
    return {join_requests(messages) for messages in questions if messages is not None}


async def evaluate_held_out(
    plan: RunPlan, model: TeacherConfig, seeds: Sequence[Seed], stop: UserStop, on_progress: Callable[[int], None], *,
    draw: int = 0, cache: Path | None = None, budget: BudgetConfig | None = None, journal: Path | None = None,
    elsewhere: Spending = NOTHING_SPENT, on_spent: Callable[[Spending], None] = lambda _spent: None,
    cut_at: Callable[[Seed], int] | None = None, on_served: Callable[[ServedReplies], None] = lambda _served: None,
) -> list[HeldOutResult]:  # fmt: skip
    """Ask `model` the questions of each seed with the recipe's sampling, and run the checks on its answers.

    The same seeds give the same prompts for every model.

    Args:
        plan: the recipe's plan.
        model: the model to evaluate.
        seeds: the seeds, usually from `held_out_seeds`.
        stop: set by the user to stop.
        on_progress: gets the number of finished seeds.
        draw: another number samples with other random numbers.
        cache: the folder of the reply cache; None for no cache.
        budget: limits on what may be spent; None for no limit.
        journal: where the spending is recorded, so that it counts after a kill too; None to record it nowhere.
        elsewhere: what was spent outside the journal and counts against the limits.
        on_spent: gets the cost of all replies that were not in the cache, also if the evaluation stops.
        cut_at: the tokens of an answer to a seed; an answer that is cut off there is judged as it is. None: the recipe's
            `max_tokens`, and an answer that is cut off does not pass.
        on_served: gets what the replies took, once all seeds are done.

    Raises:
        RunStopped: if `stop` was set before all seeds were done.
        BudgetExhausted: if the budget ended before that.
        ProviderError: if the model, or a teacher of a check, answers no call.
        UsageError: if the seeds do not determine the questions.
    """
    from agents.topologies.sample_production import run_concurrently  # LangGraph, which `validate` does not need

    results: dict[int, HeldOutResult] = {}
    plan = plan.with_recipe(teachers={**plan.recipe.teachers, EVALUATED_TEACHER: model}).with_generator(
        EVALUATED_TEACHER
    )
    stopped: list[RunStopped] = []
    before = PROCESSOR_SECONDS[model.model]
    async with open_scratch_context(plan, stop, cache, budget=budget, journal=journal, elsewhere=elsewhere) as context:
        waiting = iter(seeds)

        async def work() -> None:
            try:
                for seed in waiting:
                    async with context.dispatcher.admit_sample(seed.index):
                        results[seed.index] = await _evaluate_seed(context, seed, draw, cut_at)
                    on_progress(len(results))
            except RunStopped as reason:
                stopped.append(reason)

        try:
            await run_concurrently(
                work() for _ in range(min(len(seeds), context.dispatcher.sample_slots.max_concurrent))
            )
        finally:
            on_spent(context.dispatcher.budget.spent_in_session)
    if len(results) < len(seeds):
        raise next((reason for reason in stopped if isinstance(reason, BudgetExhausted)), RunStopped())
    number = context.dispatcher.replies[EVALUATED_TEACHER]
    on_served(ServedReplies(number, PROCESSOR_SECONDS[model.model] - before))
    return [results[seed.index] for seed in seeds]


async def _evaluate_seed(
    context: LocalAgentContext, seed: Seed, draw: int, cut_at: Callable[[Seed], int] | None
) -> HeldOutResult:
    from agents.roles.verifier import run_checks

    questions = context.plan.family.questions(seed)
    if questions is None:
        raise UsageError(
            f"{context.plan.family.name}: the generator writes the questions, so its seeds cannot be asked"
        )
    conversation: list[Message] = []
    answers: list[str] = []
    replies: list[TeacherReply] = []

    judged: list[Candidate] = []

    def build_result(fault: AnswerFault | None) -> HeldOutResult:
        check, evidence = fault or (None, "")
        request, answer, candidate = join_requests(questions), "\n".join(answers), judged[0] if judged else None
        return HeldOutResult(seed.index, request, answer, check, evidence, tuple(replies), candidate)

    for message in questions:
        conversation.append(message)
        if message.role != "user":
            continue
        teacher = context.recipe.teachers[EVALUATED_TEACHER]
        question = build_question(context.recipe, teacher, seed, conversation, draw, cut_at and cut_at(seed))
        try:
            request = context.dispatcher.request_digest(EVALUATED_TEACHER, question)
            key = CallKey(sample=seed.index, seed=seed.digest, agent="evaluation", revision=0, attempt=len(answers))
            traced = find_trace().trace_call(context.recipe.teachers[EVALUATED_TEACHER], key)
            reply = await context.dispatcher.answer(EVALUATED_TEACHER, question, request, seed.index, traced)
        except CallFailed as error:
            return build_result(AnswerFault("no answer", str(error)))
        replies.append(reply)
        answers.append(reply.text.strip())
        cut = f"after {question.max_tokens} tokens" if cut_at is None and not reply.finished else None
        if fault := find_unusable_reply(reply.text, cut):
            return build_result(fault)
        conversation.append(Message(role="assistant", content=answers[-1]))

    async def find_findings() -> list[Finding]:
        candidate = context.plan.family.build_answered(seed, answers)
        candidate = candidate.add_thinking("\n".join(reply.reasoning for reply in replies))
        judged.append(candidate)
        findings: list[Finding] = []
        await run_checks(context, seed, candidate, 0, [], findings)
        return findings

    try:
        return build_result(await judge_answer(find_findings))
    except CallFailed as error:
        raise UsageError(f"a check's teacher did not answer, so seed {seed.index} cannot be judged: {error}") from None


async def evaluate_prompted(
    plan: RunPlan, seeds: Sequence[Seed], stop: UserStop, on_progress: Callable[[int], None], *, cache: Path | None = None,
    budget: BudgetConfig | None = None, journal: Path | None = None, elsewhere: Spending = NOTHING_SPENT,
    on_spent: Callable[[Spending], None] = lambda _spent: None,
) -> list[HeldOutResult]:  # fmt: skip
    """Ask the recipe's generator for the first draft of each seed, with the prompt and the examples that a run gives it, and run
    the checks: no revision and no critic. Arguments and errors are those of `evaluate_held_out`.
    """
    from agents.topologies.sample_production import produce_samples

    samples: dict[int, Sample] = {}

    def add_sample(sample: Sample) -> None:
        samples[sample.seed.index] = sample
        on_progress(len(samples))

    async with open_scratch_context(
        configure_drafting(plan), stop, cache, budget=budget, journal=journal, elsewhere=elsewhere
    ) as context:
        try:
            await produce_samples(context, seeds, add_sample)
        finally:
            on_spent(context.dispatcher.budget.spent_in_session)
        if len(samples) < len(seeds):
            raise context.dispatcher.stop_signal.reason or RunStopped()
    return [read_drafted_sample(samples[seed.index]) for seed in seeds]


def configure_drafting(plan: RunPlan) -> RunPlan:
    """The plan without revisions, critic and measured difficulty: one draft is written and checked."""
    topology = plan.recipe.topology.model_copy(update={"kind": "centralized", "max_revisions": 0})
    agents = plan.recipe.agents.model_copy(update={"critic": None})
    return plan.with_recipe(topology=topology, agents=agents, difficulty=None)


def read_drafted_sample(sample: Sample) -> HeldOutResult:
    failed = next((one for one in sample.verdicts if not one.passed), None)
    fault = None if sample.state is SampleStatus.kept else failed.check if failed else sample.reason or "no answer"
    candidate = sample.candidate if sample.candidate.messages else None
    evidence = failed.evidence if failed else sample.detail
    return HeldOutResult(
        sample.seed.index, join_requests(sample.candidate.messages), sample.answer, fault, evidence, (), candidate
    )


async def judge_by_check(
    checks: Sequence[BoundCheck], seeds: Sequence[Seed], results: Sequence[HeldOutResult]
) -> dict[str, list[bool]]:
    """Whether each answer passes each of these checks, by the check's name; of two with one name, both. An answer that no check
    could judge passes none. `checks` ask no model.
    """
    outcomes: dict[str, list[bool]] = {}
    for bound in checks:
        passed = outcomes.setdefault(bound.check.name, [result.candidate is not None for result in results])
        for place, (seed, result) in enumerate(zip(seeds, results, strict=True)):
            if passed[place] and result.candidate:
                subject = Subject(seed, result.candidate, refuse_to_ask)
                passed[place] = await judge_answer(partial(bound.check.findings, subject, bound.options)) is None
    return outcomes


def build_question(
    recipe: Recipe,
    teacher: TeacherConfig,
    seed: Seed,
    conversation: Sequence[Message],
    draw: int = 0,
    max_tokens: int | None = None,
) -> TeacherQuestion:
    """What `evaluate_held_out` asks `teacher` after the turns of `conversation`."""
    config = recipe.agents.generator
    key = f"{recipe.seed}/exam/{seed.index}/{len(conversation)}" + (f"/{draw}" if draw else "")
    return TeacherQuestion(
        messages=list(conversation),
        contract="Answer",
        json_schema=None,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=(max_tokens or config.max_tokens) + teacher.thinking_tokens(config.reasoning),
        seed=int(text_digest(key, length=7), 16),
        reasoning=config.reasoning,
    )


# Judging one answer


class AnswerFault(NamedTuple):
    """Why an answer does not pass."""

    check: str
    """The check that did not pass, or `cut off`, `no answer` or `contract`."""
    evidence: str


def find_unusable_reply(text: str, cut_off: str | None) -> AnswerFault | None:
    """Why a reply is no answer to judge; `cut_off` says where it was cut off, if it was and may not be."""
    if cut_off:
        return AnswerFault("cut off", cut_off)
    if not text.strip():
        return AnswerFault("no answer", "the answer is empty")
    tag = find_thinking_tag(text)
    return AnswerFault("contract", f"the answer contains {tag}") if tag else None


async def judge_answer(find: Callable[[], Awaitable[Sequence[Finding]]]) -> AnswerFault | None:
    """Why an answer with the findings of `find`, which may raise InvalidReply or CheckBroken, does not pass; None if it does."""
    try:
        findings = await find()
    except InvalidReply as fault:
        return AnswerFault("contract", valid_text(str(fault)))
    except CheckBroken as fault:
        return AnswerFault(fault.check, valid_text(str(fault)))
    return next((AnswerFault(one.check, one.evidence) for one in findings if not one.passed), None)
