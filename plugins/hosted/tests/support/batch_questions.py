"""Questions for the teachers of batch APIs, and what becomes of them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config.teachers import TeacherConfig
from core.sample import Message
from plugins.hosted.batches.batch_teacher import BatchTeacher
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher

SCHEMA = {
    "title": "Draft", "type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"],
    "additionalProperties": False,
}  # fmt: skip
QUESTIONS = [
    TeacherQuestion(
        messages=[Message(role="user", content=f"Write about topic {number}.")], contract="Draft", json_schema=SCHEMA,
        temperature=0, top_p=1, max_tokens=60, seed=1,
    )
    for number in range(10)
]  # fmt: skip
Outcome = TeacherReply | BaseException


def ask_in_batches(
    table: Mapping[str, Any], folder: Path, questions: list[TeacherQuestion] = QUESTIONS
) -> list[Outcome]:
    """The outcomes of the questions, sent whenever all that are open wait. `table` replaces keys of the teacher's."""

    async def run() -> list[Outcome]:
        whole = {
            "api_key_env": "TEST_BATCH_KEY", "batch": True, "outage_seconds": 0.5,
            "max_retries": 2, **table,
        }  # fmt: skip
        async with open_teacher(TeacherConfig.model_validate(whole), folder) as teacher:
            assert isinstance(teacher, BatchTeacher)
            loop = asyncio.get_running_loop()
            teacher.on_collected = lambda: loop.call_soon(teacher.send_collected) and None
            calls = [teacher.reply(question, 0, UnlimitedAccount()) for question in questions]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def count_replies(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, TeacherReply) for outcome in outcomes)
