"""A teacher of a package: it only answers, and has the retries and the patience of every other teacher."""

import asyncio
from itertools import count

import pytest

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import Message, TokenUsage
from teachers.base import CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.protocols import LimitedTeacher

pytestmark = [pytest.mark.slow, pytest.mark.waits]

QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="hi")], contract="", json_schema=None, temperature=0, top_p=1, max_tokens=9, seed=1
)  # fmt: skip


class FailingTeacher(LimitedTeacher):
    """Raises `error` on its first `times` calls."""

    def __init__(self, error: Exception, times: float, **table: object) -> None:
        plain = {"model": "parrot/x", "max_retries": 1, "outage_seconds": 1.5}
        super().__init__(TeacherConfig.model_validate({**plain, **table}))
        self.tries = count()
        self.error, self.times = error, times

    async def answer(self, question: TeacherQuestion) -> TeacherReply:
        if next(self.tries) < self.times:
            raise self.error
        return TeacherReply(text="ho", finished=True, usage=TokenUsage(calls=1, prompt_tokens=1, completion_tokens=1))


def ask(teacher: LimitedTeacher, times: int = 1) -> list[TeacherReply | BaseException]:
    async def run() -> list[TeacherReply | BaseException]:
        calls = (teacher.reply(QUESTION, 0, UnlimitedAccount()) for _ in range(times))
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError()])
def test_what_may_pass_is_tried_again_until_the_sample_fails(error: Exception) -> None:
    (reply,) = ask(FailingTeacher(error, 1))
    assert isinstance(reply, TeacherReply)
    (failed,) = ask(FailingTeacher(error, 2))
    assert isinstance(failed, CallFailed)
    assert str(failed) == f"{type(error).__name__}: {str(error) or 'no answer in 120 s'}"


def test_an_outage_ends_the_run_and_costs_no_sample() -> None:
    for error, calls in ((ConnectionError("gone"), 4), (ConnectionRefusedError("closed"), 1)):
        errors = ask(FailingTeacher(error, float("inf")), calls)
        assert {type(found) for found in errors} == {ProviderError}
        assert str(errors[0]).startswith(f"parrot/x: no answer for 1.5 s: {type(error).__name__}")
