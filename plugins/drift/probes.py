"""The probes of a teacher: short fixed questions whose first word is open, at fixed seeds. Asks nobody."""

from core.config.teachers import TeacherConfig
from core.sample import Message
from teachers.base import TeacherQuestion

PROBES = (
    "Name a colour.",
    "Name an animal.",
    "Name a fruit.",
    "Name a country.",
    "Name a city in Europe.",
    "Name a tree.",
    "Name a tool.",
    "Name a profession.",
    "Name a musical instrument.",
    "Name a river.",
    "Name a month.",
    "Pick a number from 1 to 9.",
    "Pick a letter of the alphabet.",
    "Heads or tails?",
    "Write a first name.",
    "Write a word that ends with n.",
    "Begin a story with one sentence.",
    "Say something about the sea.",
    "Complete: The best thing about winter is",
    "Complete: She opened the box and found",
)
"""Many first tokens are likely, so a small change of the weights shows. Published: an endpoint that answers them from a table
is not found."""
SYSTEM = "Answer with one word where you can."
TOP_TOKENS = 20
"""The most that OpenAI's endpoint returns."""
WORD_TOKENS = 4


def build_probe(number: int, round_number: int, config: TeacherConfig, *, logprobs: bool) -> TeacherQuestion:
    """The question of a probe; its round decides the seed."""
    tokens = 1 if logprobs else WORD_TOKENS + config.thinking_tokens(None)
    messages = [Message(role="system", content=SYSTEM), Message(role="user", content=PROBES[number])]
    return TeacherQuestion(
        messages=messages, contract="Probe", json_schema=None, temperature=1.0, top_p=1.0, max_tokens=tokens,
        seed=1000 * round_number + number, top_logprobs=TOP_TOKENS if logprobs else 0,
    )  # fmt: skip
