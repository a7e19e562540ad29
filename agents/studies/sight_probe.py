"""A probe of a teacher's sight: whether it reads a random number in a picture. Knows no recipe.

A model for text alone, or a server that drops images, answers questions about an image as if it saw one.
"""

import re
import secrets

from agents.studies.probe_question import build_probe_question
from core.config.teachers import TeacherConfig
from core.sample import Message
from core.storage.fitted_images import render_digits
from core.storage.image_files import format_png_url
from teachers.base import CallFailed, Teacher, UnlimitedAccount
from teachers.thinking.request_keys import Reasoning

SIGHT_WORDS = "Which number of four digits does the image show? Answer with it alone, as JSON."
SIGHT_SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "string"}},
    "required": ["number"],
    "additionalProperties": False,
}
BETWEEN_DIGITS = re.compile(r"[\s,.]")


async def find_sight_fault(
    teacher: Teacher, config: TeacherConfig, seed: int, reasoning: Reasoning | None, *, may_think: bool
) -> str | None:
    """Why the teacher cannot be asked about images; None if it names the number. A guess is right in 1 of 9,000 cases."""
    number = str(1000 + secrets.randbelow(9000))
    shown = Message(role="user", content=SIGHT_WORDS, images=(format_png_url(render_digits(number)),))
    question = build_probe_question(config, seed, reasoning, may_think=may_think).model_copy(
        update={"messages": [shown], "contract": "SeenNumber", "json_schema": SIGHT_SCHEMA}
    )
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
