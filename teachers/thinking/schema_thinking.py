"""Thinking together with a reply schema, for servers that cannot do both by themselves: a reply with tags.

Knows no protocol and no budget: calls are made by the function that it gets.
"""

import json
from collections.abc import Awaitable, Callable

from core.config.teachers import TeacherConfig
from core.thinking import split_thinking
from teachers.base import TeacherQuestion, TeacherReply
from teachers.openai_chat import find_json_object, insert_instructions

TAGGED_WORDS = (
    "First think step by step between <think> and </think>. After </think> write one JSON object and nothing else. "
    "Its JSON schema: {schema}"
)

AskTeacher = Callable[[TeacherQuestion], Awaitable[TeacherReply]]


def needs_own_thinking(question: TeacherQuestion, config: TeacherConfig) -> bool:
    """Whether the question is not sent as it is: it has a schema, and asks for thinking."""
    return config.thinking != "native" and question.json_schema is not None and question.reasoning not in (None, "off")


async def think_and_answer(ask: AskTeacher, question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """The reply to a question with a schema, and the thinking before it; by a call of `ask`.

    Raises:
        CallFailed, ProviderError, RunStopped: as `ask`.
    """
    if not needs_own_thinking(question, config):
        return await ask(question)
    reply = await ask(build_tagged_question(question))
    split = split_thinking(reply.text)
    return reply.model_copy(
        update={
            "text": find_json_object(split.answer),
            "reasoning": reply.reasoning or split.reasoning,
            "finished": reply.finished and split.closed,
        }
    )


def build_tagged_question(question: TeacherQuestion) -> TeacherQuestion:
    """Asks in words for the thoughts between tags and the object after them."""
    words = TAGGED_WORDS.format(schema=json.dumps(question.json_schema))
    return question.model_copy(update={"messages": insert_instructions(question.messages, words), "json_schema": None})
