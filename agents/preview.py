"""Look before a run: a few samples with every turn, and whether each teacher answers. Keeps nothing."""

import tempfile
from pathlib import Path

from pydantic import BaseModel

from agents.crew import Stop
from agents.ledger import Ledger
from agents.produce import make_seeds, open_teachers, produce
from agents.teachers import open_teacher
from agents.teachers.base import CallFailed, Question, schema_of
from core.errors import ProviderError
from core.recipe import Recipe
from core.sample import Message, Sample


async def preview_samples(recipe: Recipe, seeds: Path, number: int, stop: Stop) -> list[Sample]:
    """The run's first `number` samples, made in the same way.

    Raises:
        Stopped, ProviderError: as `produce`.
    """
    first = make_seeds(recipe, seeds, "preview0")[:number]
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch) / "calls.jsonl") as ledger:
        async with open_teachers(recipe) as teachers:
            return await produce(recipe, first, teachers, ledger, stop, lambda _sample: None)


class Review(BaseModel):
    """The form of the question that every teacher is asked: small, and one that a scripted teacher knows too."""

    advice: str


async def ask_teachers(recipe: Recipe) -> dict[str, str]:
    """What each teacher says to a short question in JSON; raises ProviderError with all that do not answer."""
    answers, faults = {}, []
    for name, config in recipe.teachers.items():
        question = Question(
            messages=[Message(role="user", content="Advise a new writer in one short sentence, as JSON.")],
            contract="Review", json_schema=schema_of(Review), temperature=0.0, top_p=1.0, max_tokens=60, seed=recipe.seed,
        )  # fmt: skip
        try:
            async with open_teacher(config.model_copy(update={"max_retries": 0})) as teacher:
                reply = await teacher.reply(question)
            told = "with" if reply.confidence is not None else "without"
            answers[name] = f"{config.model} answers, {told} token probabilities: {reply.text.strip()}"
        except (CallFailed, ProviderError) as error:
            faults.append(f"teacher {name}: {error}")
    if faults:
        raise ProviderError("; ".join(faults))
    return answers
