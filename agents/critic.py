"""The critic: judges a candidate by rubric and advises, before it is verified. Two kinds: a teacher, or its confidence."""

from langgraph.runtime import Runtime

from agents.checks.base import values_of
from agents.contract import Review
from agents.crew import Crew
from agents.state import Handover, Update, Work
from agents.teachers.base import Ask, CallFailed
from core.errors import ProviderError
from core.recipe import CriticConfig

CONFIDENCE_BANDS = (0.30, 0.35, 0.40, 0.50)
"""Geometric-mean token probabilities from which the score is 2, 3, 4 and 5.

On 76 answers of SmolLM2-135M that had passed every check, 48 of them judged good by eye, the area under the ROC curve is
.71 for this number and .52 for the same model's own scores by the critic's prompt (`benchmarks/README.md`). It prefers
the likely, so it narrows the data; the collapse metrics are where that shows."""


async def critic(state: Work, runtime: Runtime[Crew]) -> Update:
    crew = runtime.context
    config = crew.recipe.agents.critic
    assert config is not None, "a topology without a critic does not come here"
    if config.type == "confidence":
        return {"handovers": [_by_confidence(state, crew)]}
    return {"handovers": [await _by_teacher(state, crew, config)]}


def _by_confidence(state: Work, crew: Crew) -> Handover:
    confidence = state["progress"].confidence
    if confidence is None:
        model = crew.recipe.writer.model
        raise ProviderError(f'{model}: tells no token probabilities, which a critic of type "confidence" needs')
    score = 1 + sum(confidence >= band for band in CONFIDENCE_BANDS)
    faults = [f"its writer was unsure of it (mean token probability {confidence:.2f})"] if score < 4 else []
    advice = "say it in simpler and more usual words" if faults else "keep it as it is"
    return Handover("critic", {"scores": {"confidence": score}, "faults": faults, "advice": advice})


async def _by_teacher(state: Work, crew: Crew, config: CriticConfig) -> Handover:
    progress, candidate = state["progress"], state["progress"].candidate
    assert candidate is not None, "a critic is only sent to a validated candidate"
    messages = crew.prompt("critic", values_of(state["seed"], candidate)) + crew.repair(progress.broken)
    ask = Ask(sample=state["seed"].index, agent="critic", revision=progress.revision, attempt=progress.attempt)
    try:
        reply, turn = await crew.ask(ask, config, messages, Review, config.temperature)
    except CallFailed as error:
        return Handover("critic", "", failure=str(error))
    return Handover("critic", reply.text, (turn,), reply.finished)
