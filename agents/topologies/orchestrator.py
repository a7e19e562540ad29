"""The orchestrator: validates every hand-over and decides the next step of a sample.

A deterministic policy without a teacher: a pure function from the state of one sample to the next step. Knows no LangGraph.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

from agents.calls.agent_context import AgentContext, BrokenReply
from agents.planning.rubrics import check_rubrics
from agents.reply_schema import AttemptResults, Findings, InvalidReply, Review
from agents.roles.sample_state import AgentHandover, SampleOutcome, SampleProgress, SampleState
from core.config.agents import OUTSIDE_BANDS, AgentConfig
from core.sample import Critique, RejectionReason, SampleStatus, Seed, Verdict

NextStep = Literal["generator", "critic", "verifier", "solver", "end"]


MIN_QUOTED_CHARACTERS = 2
"""Letters and digits of a quote: one letter is in every text."""


class OrchestratorDecision(NamedTuple):
    step: NextStep
    progress: SampleProgress


def decide_next_step(state: SampleState, context: AgentContext) -> OrchestratorDecision:
    """Validate the last hand-over; then revise, verify, keep or drop the sample."""
    progress = state["progress"]
    if not state["handovers"]:
        return OrchestratorDecision("generator", progress)
    handover = state["handovers"][-1]
    if ending := handover.ending:
        return OrchestratorDecision("end", replace(progress, outcome=ending))
    try:
        if handover.agent == "generator":
            return decide_after_draft(progress, state["seed"], handover, context)
        if handover.agent == "critic":
            return _decide_after_review(progress, parse_review(handover, context), context)
        if handover.agent == "solver":
            return _decide_after_attempts(progress, state["seed"], handover, context)
        return decide_after_findings(progress, handover, context)
    except InvalidReply as fault:
        # Ask the same agent again; an agent that is code would return the same.
        agents = context.recipe.agents
        configs: dict[str, AgentConfig | None] = {"generator": agents.generator, "critic": agents.critic}
        config = configs.get(handover.agent)
        if config and isinstance(handover.payload, str) and progress.attempt < config.max_repairs:
            step: NextStep = "generator" if handover.agent == "generator" else "critic"
            broken = BrokenReply(handover.payload, str(fault))
            return OrchestratorDecision(step, replace(progress, attempt=progress.attempt + 1, broken=broken))
        return _end_sample(progress, SampleStatus.failed, RejectionReason.contract, f"{handover.agent}: {fault}")


def parse_review(handover: AgentHandover, context: AgentContext) -> Review:
    """A critic's review, with a score for each rubric of its prompt and no other, and with quotes of what it was shown only.
    Raises InvalidReply.
    """
    review = handover.parse(Review)
    config = context.recipe.agents.critic
    if config and config.type == "teacher":
        check_rubrics(review, context.plan.rubrics)
    shown = fold_spaces(_find_critic_request(handover, context))
    faults = [
        fault if _is_quoted(fault.quote, shown) else fault.model_copy(update={"quote": ""}) for fault in review.faults
    ]
    return review.model_copy(update={"faults": faults})


def _find_critic_request(handover: AgentHandover, context: AgentContext) -> str:
    """The message with the candidate, which a broken reply and a request to repair it may follow."""
    if not handover.turns:
        return ""
    turn = handover.turns[0]
    return [*(message.content for message in turn.context), turn.asked][len(context.plan.prompt("critic").messages) - 1]


def _is_quoted(quote: str, shown: str) -> bool:
    """Whether a quote has words, and they are in `shown`, a text of `fold_spaces`."""
    folded = fold_spaces(quote)
    return sum(map(str.isalnum, folded)) >= MIN_QUOTED_CHARACTERS and folded in shown


def fold_spaces(text: str) -> str:
    """A text in lower case with single spaces, without the quotation marks and dots around it."""
    return " ".join(text.lower().split()).strip(" \"'“”‘’….")


def decide_after_draft(
    progress: SampleProgress, seed: Seed, handover: AgentHandover, context: AgentContext
) -> OrchestratorDecision:
    draft = handover.parse(context.plan.family.reply_type(seed))
    try:
        candidate = context.plan.family.candidate(seed, draft).add_images(handover.images)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InvalidReply(f"cannot be read as a draft: {type(error).__name__}: {error}"[:300]) from error
    if isinstance(handover.payload, str):  # a transcript of several replies has the thinking of each
        candidate = candidate.add_thinking("".join(turn.reasoning for turn in handover.turns))
    drafted = replace(
        progress,
        candidate=candidate,
        draft=str(handover.payload),
        confidence=handover.confidence,
        attempt=0,
        broken=None,
    )
    review_now = drafted.awaits_review(context.recipe) and not context.plan.early_checks
    return OrchestratorDecision("critic" if review_now else "verifier", drafted)


def record_review(progress: SampleProgress, review: Review) -> SampleProgress:
    """The progress with a review of the current draft."""
    quotes = [fault.quote for fault in review.faults]
    critique = Critique(
        revision=progress.revision,
        scores=review.scores,
        faults=[fault.fault for fault in review.faults],
        advice=review.advice,
        quotes=quotes if any(quotes) else [],
    )
    return replace(progress, critiques=(*progress.critiques, critique), attempt=0, broken=None)


def _decide_after_review(progress: SampleProgress, review: Review, context: AgentContext) -> OrchestratorDecision:
    config = context.recipe.agents.critic
    assert config is not None
    reviewed, low = record_review(progress, review), find_low_rubric(review)
    critique = reviewed.critiques[-1]
    # A fault that quotes what it is about is mended as long as revisions are left; the scores decide at the end.
    revisable = critique.quoted_faults and progress.revision < context.recipe.topology.max_revisions
    if revisable or review.scores[low] < config.min_score:
        faults = critique.quoted_faults or critique.faults or [review.advice]
        return _revise_or_drop(reviewed, RejectionReason.critic, low, review.advice or faults[0], faults, context)
    if context.plan.late_checks:
        return OrchestratorDecision("verifier", reviewed)
    return _measure_or_keep(reviewed, context)


def find_low_rubric(review: Review) -> str:
    """The rubric with the lowest score, the first of several."""
    return min(review.scores, key=lambda rubric: review.scores[rubric])


def decide_after_findings(
    progress: SampleProgress, handover: AgentHandover, context: AgentContext
) -> OrchestratorDecision:
    findings = handover.parse(Findings).findings
    verdicts = [Verdict(revision=progress.revision, **finding.model_dump()) for finding in findings]
    verified = replace(progress, verdicts=(*progress.verdicts, *verdicts))
    if handover.broken:  # a check that raised an error gives no verdict, so a revision would have nothing to correct
        return _end_sample(verified, SampleStatus.failed, RejectionReason.contract, handover.broken)
    failed = next((verdict for verdict in verdicts if not verdict.passed), None)
    if failed is None:
        if verified.awaits_review(context.recipe):
            return OrchestratorDecision("critic", verified)
        return _measure_or_keep(verified, context)
    return _revise_or_drop(
        verified, RejectionReason.verifier, failed.check, failed.evidence, [failed.evidence], context
    )


def _measure_or_keep(progress: SampleProgress, context: AgentContext) -> OrchestratorDecision:
    """The step of a sample that passed all checks and the review."""
    if context.recipe.difficulty:
        return OrchestratorDecision("solver", progress)
    return OrchestratorDecision("end", replace(progress, outcome=SampleOutcome(SampleStatus.kept)))


def _decide_after_attempts(
    progress: SampleProgress, seed: Seed, handover: AgentHandover, context: AgentContext
) -> OrchestratorDecision:
    """Keep a verified sample whose pass rate the recipe wants."""
    difficulty = context.recipe.difficulty
    assert difficulty is not None
    measured = replace(progress, attempts=tuple(handover.parse(AttemptResults).attempts))
    if handover.broken:
        return _end_sample(measured, SampleStatus.failed, RejectionReason.contract, handover.broken)
    fault = difficulty.describe_fault(measured.attempts)
    if fault is None and context.recipe.groups_by_pass_rate:
        group = context.recipe.find_sample_group(seed.data, measured.attempts)
        passed = f"{sum(measured.attempts)} of {len(measured.attempts)} attempts passed"
        fault = None if group else f"{OUTSIDE_BANDS}: {passed}"
    if fault:
        return _end_sample(measured, SampleStatus.dropped, RejectionReason.difficulty, fault)
    return OrchestratorDecision("end", replace(measured, outcome=SampleOutcome(SampleStatus.kept)))


def _revise_or_drop(
    progress: SampleProgress,
    reason: RejectionReason,
    detail: str,
    advice: str,
    faults: list[str],
    context: AgentContext,
) -> OrchestratorDecision:
    if progress.revision < context.recipe.topology.max_revisions:
        named = (*progress.faults, tuple(faults))
        revised = replace(progress, revision=progress.revision + 1, advice=advice.rstrip(". "), faults=named)
        return OrchestratorDecision("generator", revised)
    return _end_sample(progress, SampleStatus.dropped, reason, detail)


def _end_sample(
    progress: SampleProgress, state: SampleStatus, reason: RejectionReason, detail: str
) -> OrchestratorDecision:
    return OrchestratorDecision("end", replace(progress, outcome=SampleOutcome(state, reason, detail)))
