"""Asks a teacher the probes, charged to the run's budget. Decides nothing."""

from collections.abc import Sequence
from random import Random

from agents.calls.budget import BudgetAccount, RunBudget
from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import run_concurrently
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.runs.run_dir import RunDir
from core.sample import Spending
from core.stop_signal import StopSignal
from plugins.drift.fingerprint import ZEROED, Logprobs, Night, find_degradations
from plugins.drift.probes import PROBES, TOP_TOKENS, build_probe
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherReply
from teachers.providers import open_teacher

LOGPROB_ROUNDS, WORD_ROUNDS = 3, 8
"""Three show the noise of a server. Eight words of a probe and eight others are unlike by chance once in 12,870 cases."""
OWN_SERVERS = ("fake", "local", "vllm")
"""Providers that only change when their user changes them."""


def list_watched(plan: RunPlan, named: Sequence[str]) -> list[str]:
    """The teachers that are probed."""
    hosted = [
        name for name in sorted(plan.teachers) if plan.recipe.teachers[name].model.partition("/")[0] not in OWN_SERVERS
    ]
    return list(named) or hosted


async def ask_teacher(plan: RunPlan, run: RunDir, name: str, stop_signal: StopSignal) -> tuple[Night, Spending]:
    """Tonight's replies of a teacher, and what they cost.

    Raises:
        RunStopped: if the user stops the run, or its budget does not cover the probes (BudgetExhausted).
        ProviderError: if no call can succeed.
    """
    config = plan.recipe.teachers[name]
    with RunBudget(plan.recipe.budget, run.spend_file, plan.max_calls_per_sample()) as budget:
        account = BudgetAccount(budget, stop_signal, config)
        async with open_teacher(config) as teacher:
            night = await read_night(teacher, config, account)
        return night, budget.spent_in_session


async def read_night(teacher: Teacher, config: TeacherConfig, account: ChargeAccount) -> Night:
    """Log-probabilities of first tokens, or, where the endpoint has none or only zeroes, the first words of replies."""
    name, degraded = f"{teacher.model} {teacher.manner}".strip(), []
    if config.returns_logprobs:
        try:
            replies = await ask_rounds(teacher, config, account, logprobs=True)
        except ProviderError:  # it rejects or ignores the key; if it is down, words fail too
            replies = []
        tokens = [[read_likeliest(reply) for reply in one] for one in replies]
        degraded = find_degradations(tokens, TOP_TOKENS)
        if replies and degraded != [ZEROED]:
            return Night(name, "logprobs", logprobs=tokens, degraded=degraded)
    replies = await ask_rounds(teacher, config, account, logprobs=False)
    words = [[read_word(reply) for reply in one] for one in replies]
    return Night(name, "words", words=words, degraded=degraded)


async def ask_rounds(
    teacher: Teacher, config: TeacherConfig, account: ChargeAccount, *, logprobs: bool
) -> list[list[TeacherReply | None]]:
    """The replies of each probe by round. All are asked at once, as many as the teacher has slots, in a fixed mixed order, so
    that equal requests meet different neighbours in the server's batches.
    """
    rounds = LOGPROB_ROUNDS if logprobs else WORD_ROUNDS
    replies: list[list[TeacherReply | None]] = [[None] * rounds for _ in PROBES]
    places = [(probe, number) for probe in range(len(PROBES)) for number in range(rounds)]
    Random(0).shuffle(places)

    async def ask(probe: int, number: int) -> None:
        question = build_probe(probe, number, config, logprobs=logprobs)
        try:
            replies[probe][number] = await teacher.reply(question, 0, account)
        except CallFailed:
            replies[probe][number] = None

    first, *rest = places
    await ask(*first)  # alone: an endpoint without log-probabilities is asked for them once
    await run_concurrently(ask(*place) for place in rest)
    return replies


def read_likeliest(reply: TeacherReply | None) -> Logprobs | None:
    return (reply.tokens[0].likeliest or None) if reply and reply.tokens else None


def read_word(reply: TeacherReply | None) -> str | None:
    """The first word without signs, in lowercase."""
    if reply is None:
        return None
    words = "".join(one if one.isalnum() else " " for one in reply.text.lower()).split()
    return words[0] if words else "-"
