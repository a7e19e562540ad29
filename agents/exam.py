"""An exam: a model is asked what seeds ask, in the plain words that a student is trained on, and the recipe's checks judge it.

Knows no graph: there is one try, nothing is repaired or revised, and nobody's confidence counts. Keeps nothing on the disk.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agents.brake import Stop, Stopped
from agents.contract import ContractFault
from agents.crew import DeskCrew
from agents.plan import Plan
from agents.preview import scratch_crew
from agents.produce import together
from agents.seeds import Seeds
from agents.teachers.base import CallFailed, Question, Reply
from agents.verifier import findings_on
from core.errors import UsageError
from core.recipe import TeacherConfig
from core.sample import Message, Seed, digest_of_text

EXAMINED = "examined"
"""The name of who is asked, beside the recipe's own teachers, who may be asked by checks."""
LOOKED_AT = 50
"""Seeds looked at for each that is wanted, where quotas make some kinds only."""


class Result(NamedTuple):
    """What became of one seed."""

    seed: int
    question: str
    """All turns of the user."""
    answer: str
    """All turns of the assistant that were answered."""
    fault: str | None
    """The check that did not pass, or `no answer`, `cut off` or `contract`; None where all passed."""
    evidence: str
    replies: tuple[Reply, ...]
    """What was answered, turn by turn, with its tokens."""


def held_out_seeds(plan: Plan, number: int) -> list[Seed]:
    """The first `number` seeds after the last that a run of this recipe can use. Where there are fewer rows of seeds than
    the recipe makes samples, the rows are known and only what is drawn for each is new.

    Raises:
        UsageError: if a seed cannot be made.
    """
    recipe = plan.recipe
    first = -(-recipe.samples // recipe.answers_per_seed)
    longer = recipe.model_copy(update={"samples": first + number * LOOKED_AT, "answers_per_seed": 1})
    seeds = Seeds(replace(plan, recipe=longer), "held0out")
    wanted = (seeds[i] for i in range(first, len(seeds)))
    if recipe.quotas:
        wanted = (seed for seed in wanted if recipe.group_of(seed.data) in recipe.goals)
    return list(islice(wanted, number))


def can_be_examined(plan: Plan) -> bool:
    """Whether the recipe's seeds alone say what is asked."""
    [seed] = held_out_seeds(plan, 1)
    return plan.family.questions(seed) is not None


async def examine(
    plan: Plan,
    model: TeacherConfig,
    seeds: Sequence[Seed],
    stop: Stop,
    told: Callable[[int], None],
    *,
    draw: int = 0,
    cache: Path | None = None,
) -> list[Result]:
    """Ask `model` about each seed, with the recipe's sampling, and have the checks look at what it says. Same seeds, same
    prompts, whoever is asked. `told` hears how many are done. Another `draw` is asked under other random numbers. With a
    `cache` folder, answers that are known are not asked for again.

    Raises:
        Stopped: if `stop` was set before all were asked.
        ProviderError: if the model, or a teacher that a check asks, answers nobody.
        UsageError: if the questions are not the seeds' own.
    """
    results: dict[int, Result] = {}
    async with scratch_crew(_asking(plan, model), stop, cache) as crew:
        waiting = iter(seeds)

        async def work() -> None:
            with suppress(Stopped):
                for seed in waiting:
                    async with crew.desk.sample(seed.index):
                        results[seed.index] = await _result(crew, seed, draw)
                    told(len(results))

        await together(work() for _ in range(min(len(seeds), crew.desk.floor.most)))
    if len(results) < len(seeds):
        raise Stopped
    return [results[seed.index] for seed in seeds]


def _asking(plan: Plan, model: TeacherConfig) -> Plan:
    """The plan with `model` in the generator's place, and no critic."""
    recipe = plan.recipe
    generator = recipe.agents.generator.model_copy(update={"teacher": EXAMINED})
    agents = recipe.agents.model_copy(update={"generator": generator, "critic": None})
    own = {"teachers": {**recipe.teachers, EXAMINED: model}, "agents": agents}
    return replace(plan, recipe=recipe.model_copy(update=own))


async def _result(crew: DeskCrew, seed: Seed, draw: int) -> Result:
    questions = crew.plan.family.questions(seed)
    if questions is None:
        raise UsageError(f"{crew.plan.family.name}: the generator writes the questions, so its seeds cannot be asked")
    said: list[Message] = []
    answers: list[str] = []
    replies: list[Reply] = []

    def ended(fault: str | None, evidence: str) -> Result:
        question = "\n".join(message.content for message in questions if message.role == "user")
        return Result(seed.index, question, "\n".join(answers), fault, evidence, tuple(replies))

    for message in questions:
        said.append(message)
        if message.role != "user":
            continue
        question = _question(crew, seed, said, draw)
        try:
            reply = await crew.desk.answer(EXAMINED, question, crew.desk.request(EXAMINED, question), seed.index)
        except CallFailed as error:
            return ended("no answer", str(error))
        replies.append(reply)
        answers.append(reply.text.strip())
        if not reply.finished:
            return ended("cut off", f"after {crew.recipe.agents.generator.max_tokens} tokens")
        if not answers[-1]:
            return ended("no answer", "it says nothing")
        said.append(Message(role="assistant", content=answers[-1]))
    try:
        candidate = crew.plan.family.answered(seed, answers)
        findings = await findings_on(crew, seed, candidate, 0, [])
    except ContractFault as fault:
        return ended("contract", str(fault))
    except CallFailed as error:
        raise UsageError(
            f"a check's teacher did not answer, so nothing is known of seed {seed.index}: {error}"
        ) from None
    failed = next((finding for finding in findings if not finding.passed), None)
    return ended(failed.check, failed.evidence) if failed else ended(None, "")


def _question(crew: DeskCrew, seed: Seed, said: Sequence[Message], draw: int) -> Question:
    config = crew.recipe.agents.generator
    key = f"{crew.recipe.seed}/exam/{seed.index}/{len(said)}" + (f"/{draw}" if draw else "")
    return Question(
        messages=list(said),
        contract="Answer",
        json_schema=None,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=int(digest_of_text(key, length=7), 16),
    )
