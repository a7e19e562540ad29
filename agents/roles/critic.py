"""The critic: scores a candidate by rubric and gives advice, before verification. The scores come from a teacher or from
the generator's confidence.
"""

from langgraph.runtime import Runtime

from agents.calls.agent_context import AgentContext
from agents.checks.base import HINT, subject_values
from agents.planning.rubrics import asks_for_quotes, build_review_schema
from agents.planning.run_plan import NO_PROBABILITIES
from agents.reply_schema import Review
from agents.roles.generator import draft_messages
from agents.roles.sample_state import AgentHandover, SampleState, StateUpdate, start_sample
from core.errors import ProviderError
from core.sample import Candidate, Seed, label_turns, show_images
from teachers.base import CallFailed, CallKey

CONFIDENCE_BANDS = (0.30, 0.35, 0.40, 0.50)
"""Geometric-mean token probabilities from which the score is 2, 3, 4 and 5.

On 76 answers of SmolLM2-135M that had passed every check, 48 of them labeled good by eye, the area under the ROC curve is
.71 for this number and .52 for the same model's own scores by the critic's prompt (`benchmarks/README.md`). It prefers
likely text, so it narrows the data; the collapse metrics show how much."""

HINT_REQUEST = "A check noticed, and may be wrong: {hints}. Judge by the meaning whether it is a fault."


async def run_critic(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    context, progress = runtime.context, state["progress"]
    config = context.recipe.agents.critic
    assert config is not None, "only a topology with a critic runs this node"
    if config.type == "confidence":
        if progress.confidence is None:
            model = context.recipe.generator_teacher.model
            raise ProviderError(f"{model}: {NO_PROBABILITIES}")
        score = 1 + sum(progress.confidence >= band for band in CONFIDENCE_BANDS)
        unsure = [f"its writer was unsure of it (mean token probability {progress.confidence:.2f})"]
        faults = unsure if score < 4 else []
        advice = "say it in simpler and more usual words" if faults else "keep it as it is"
        review = {"scores": {"confidence": score}, "faults": faults, "advice": advice}
        return {"handovers": [AgentHandover("critic", review)]}

    assert progress.candidate is not None, "the critic only gets a validated candidate"
    prompt = context.plan.prompt("critic")
    request = prompt.fill(_review_values(context, state["seed"], progress.candidate))
    hints = [
        verdict.evidence.removeprefix(HINT)
        for verdict in progress.verdicts
        if verdict.revision == progress.revision and verdict.evidence.startswith(HINT)
    ]
    if hints:
        text = f"{request[-1].content}\n{HINT_REQUEST.format(hints='; '.join(hints))}"
        request = [*request[:-1], request[-1].model_copy(update={"content": text})]
    if context.plan.shows_images:
        request = show_images(request, progress.candidate.images)
    messages = request + context.repair_messages(progress.broken)
    seed = state["seed"]
    key = CallKey(
        sample=seed.index, seed=seed.digest, agent="critic", revision=progress.revision, attempt=progress.attempt
    )
    try:
        schema = build_review_schema(context.plan.rubrics, quotes=asks_for_quotes(prompt))
        reply, turn = await context.ask(key, config, messages, Review, config.temperature, schema)
    except CallFailed as error:
        return {"handovers": [AgentHandover("critic", "", failure=str(error))]}
    return {"handovers": [AgentHandover("critic", reply.text, (turn,), reply.finished)]}


def _review_values(context: AgentContext, seed: Seed, candidate: Candidate) -> dict[str, str]:
    """The values of a critic's prompt: what a check sees, the request to the generator, and the labeled conversation."""
    own = {} if context.plan.family.converses else {"request": draft_messages(context, start_sample(seed))[-1].content}
    return {
        **subject_values(seed, candidate),
        "conversation": label_turns(context.plan.family.reviewed_messages(candidate)),
        **own,
    }
