"""Thinking together with a reply schema, for servers that cannot do both in one request: a reply with tags, or two calls.

Knows no protocol and no budget: calls are made by the function that it gets.
"""

import json
from collections.abc import Awaitable, Callable

from core.config.teachers import TeacherConfig
from core.sample import Message
from core.thinking import split_thinking
from teachers.base import TeacherQuestion, TeacherReply
from teachers.openai_chat import find_json_object, insert_instructions

TAGGED_WORDS = (
    "First think step by step between <think> and </think>. After </think> write one JSON object and nothing else. "
    "Its JSON schema: {schema}"
)
THOUGHT_WORDS = (
    "Do not answer yet. First think the task through, step by step, in plain text. The answer as a JSON object is requested "
    "in the next message."
)
ANSWER_WORDS = "Now give your answer, based on these thoughts."

AskTeacher = Callable[[TeacherQuestion], Awaitable[TeacherReply]]


def needs_own_thinking(question: TeacherQuestion, config: TeacherConfig) -> bool:
    """Whether the question is not sent as it is: it has a schema, and asks for thinking."""
    return config.thinking != "native" and question.json_schema is not None and question.reasoning not in (None, "off")


async def think_and_answer(ask: AskTeacher, question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """The reply to a question with a schema, and the thinking before it; by one or two calls of `ask`.

    Raises:
        CallFailed, ProviderError, RunStopped: as `ask`.
    """
    if not needs_own_thinking(question, config):
        return await ask(question)
    if config.thinking == "tagged":
        reply = await ask(build_tagged_question(question))
        split = split_thinking(reply.text)
        return reply.model_copy(
            update={
                "text": find_json_object(split.answer),
                "reasoning": reply.reasoning or split.reasoning,
                "finished": reply.finished and split.closed,
            }
        )
    first = await ask(build_thought_question(question))
    thought = first.reasoning or first.text.strip()
    # A teacher that thinks by itself may be cut off in the text after its thoughts, which is not used.
    if not first.finished and not (first.reasoning and first.text):
        return first.model_copy(update={"text": "", "reasoning": thought})
    second = await ask(build_answer_question(question, thought, config))
    usage = first.usage
    if thought and not first.reasoning:
        usage = usage.model_copy(update={"reasoning_tokens": usage.completion_tokens})
    return second.model_copy(update={"reasoning": thought, "usage": usage + second.usage})


def build_tagged_question(question: TeacherQuestion) -> TeacherQuestion:
    """Asks in words for the thoughts between tags and the object after them."""
    words = TAGGED_WORDS.format(schema=json.dumps(question.json_schema))
    return question.model_copy(update={"messages": insert_instructions(question.messages, words), "json_schema": None})


def build_thought_question(question: TeacherQuestion) -> TeacherQuestion:
    """Asks for the thoughts only."""
    return question.model_copy(
        update={"messages": insert_instructions(question.messages, THOUGHT_WORDS), "json_schema": None}
    )


def build_answer_question(question: TeacherQuestion, thought: str, config: TeacherConfig) -> TeacherQuestion:
    """Asks for the answer in the schema, without more thinking."""
    thoughts = [Message(role="assistant", content=thought)] if thought else []
    longest_answer = question.max_tokens - config.thinking_tokens(question.reasoning)
    return question.model_copy(
        update={
            "messages": [*question.messages, *thoughts, Message(role="user", content=ANSWER_WORDS)],
            "max_tokens": longest_answer + config.thinking_tokens("off"),
            "reasoning": "off",
            "own_messages": question.own_messages + len(thoughts) + 1,
        }
    )
