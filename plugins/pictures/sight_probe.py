"""A probe of teachers' sight: whether they read a random number in a picture.

A model for text alone, or a server that drops images, answers questions about an image as if it saw one.
"""

import io
import re
import secrets

from agents.planning.run_plan import RunPlan
from agents.studies.teacher_probe import build_probe_question
from core.errors import ProviderError
from core.sample import Message
from core.storage.image_files import format_image_url
from teachers.base import CallFailed, Teacher, TeacherQuestion, UnlimitedAccount
from teachers.providers import open_teacher

SIGHT_WORDS = "Which number of four digits does the image show? Answer with it alone, as JSON."
SIGHT_SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "string"}},
    "required": ["number"],
    "additionalProperties": False,
}
BETWEEN_DIGITS = re.compile(r"[\s,.]")


async def probe_sight(plan: RunPlan) -> dict[str, list[str]]:
    """Which teachers see the pictures that the recipe shows them, for `validate --live`.

    Raises:
        ProviderError: with all that do not see.
    """
    seeing, faults = [], []
    for name in sorted(plan.seeing_teachers):
        config = plan.recipe.teachers[name]
        if config.model.startswith("fake/"):  # a script sees nothing
            continue
        settings = [agent.reasoning for agent in plan.agents.values() if agent.teacher == name and agent.reasoning]
        no_retry = config.model_copy(update={"max_retries": 0, "outage_seconds": 0.0})
        async with open_teacher(no_retry) as teacher:
            question = build_probe_question(
                config, plan.recipe.seed, "off" if "off" in settings else None, may_think=bool(settings)
            )
            fault = await _find_sight_fault(teacher, question)
        seeing += [] if fault else [f"seen by {name}"]
        faults += [f"teacher {name}: {fault}"] if fault else []
    if faults:
        raise ProviderError("; ".join(faults))
    return {"the recipe": seeing} if seeing else {}


async def _find_sight_fault(teacher: Teacher, probe: TeacherQuestion) -> str | None:
    """Why the teacher cannot be asked about images; None if it names the number. A guess is right in 1 of 9,000 cases."""
    number = str(1000 + secrets.randbelow(9000))
    shown = Message(role="user", content=SIGHT_WORDS, images=(format_image_url(render_digits(number)),))
    question = probe.model_copy(update={"messages": [shown], "contract": "SeenNumber", "json_schema": SIGHT_SCHEMA})
    try:
        reply = await teacher.reply(question, 0, UnlimitedAccount())
    except CallFailed as error:
        return f"cannot be shown an image: {error}"
    if number in BETWEEN_DIGITS.sub("", reply.text):
        return None
    return (
        f"does not see: of a picture of the number {number} it says {reply.text.strip()[:60]!r}; name a model that takes images, "
        "behind a server that passes them on"
    )


def render_digits(number: str) -> bytes:
    """A PNG of a number in large digits, to ask whether a model sees."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (100 + 80 * len(number), 192), "white")
    ImageDraw.Draw(image).text((50, 96), number, fill="black", font=ImageFont.load_default(size=128), anchor="lm")
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
