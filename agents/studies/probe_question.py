"""The short question that probes a teacher, and the check of its reply. Knows no ability."""

import json

from core.config.teachers import TeacherConfig
from core.sample import Message
from teachers.base import TeacherQuestion, TeacherReply
from teachers.thinking.request_keys import Reasoning

COLOURS = ("vermilion", "ultramarine", "ochre")
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": list(COLOURS)}, "again": {"type": "string", "enum": ["no"]}},
    "required": ["colour", "again"],
    "additionalProperties": False,
}
"""A schema that no model follows by chance, so that a server which ignores the schema is detected."""
PROBE_WORDS = f"Which of {', '.join(COLOURS)} has the most vowels? Count them. Name this colour, as JSON."
"""Models that choose how much to think answer an easier question at once."""
DIGITS_WORDS = "Write 40 random digits, without a pattern, and nothing else."
"""Two equal answers are no chance, unlike those to a question with three possible answers."""
PROBE_TOKENS = 60
UNSTOPPED_TOKENS = 1024
"""For the thinking of a model that was not asked to think."""


def build_probe_question(
    config: TeacherConfig, seed: int, reasoning: Reasoning | None = None, *, may_think: bool = True
) -> TeacherQuestion:
    """`may_think` leaves tokens for thinking, which some models do without being asked to."""
    allowance = max(config.thinking_tokens(reasoning), UNSTOPPED_TOKENS if may_think else 0)
    return TeacherQuestion(
        messages=[Message(role="user", content=PROBE_WORDS)], contract="Probe", json_schema=PROBE_SCHEMA,
        temperature=1.0, top_p=1.0, max_tokens=PROBE_TOKENS + allowance, seed=seed, reasoning=reasoning,
    )  # fmt: skip


def matches_probe(reply: TeacherReply) -> bool:
    try:
        answer = json.loads(reply.text)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.keys() == {"colour", "again"} and answer["colour"] in COLOURS
