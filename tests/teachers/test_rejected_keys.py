"""Keys that an endpoint rejects, in the error forms of OpenAI, Azure, LiteLLM, vLLM, Mistral and Gemini's own gateway."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import Message
from teachers.base import CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher
from tests.support.http_serving import serve_handler

QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="hi")], contract="Draft", json_schema={"type": "object"}, temperature=0.7, top_p=0.9,
    max_tokens=9, seed=1,
)  # fmt: skip
COMPLETION = {
    "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
Answer = tuple[int, Any]


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Answer:
    return 400, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def unsupported(key: str, advice: str = "") -> Answer:
    message = f"Unsupported parameter: '{key}' is not supported with this model.{advice}"
    return openai_error(message, key, "unsupported_parameter")


LITELLM = (
    "litellm.UnsupportedParamsError: azure does not support parameters: ['logprobs'], for model=gpt-5-mini. To drop these, set "
    "`litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n"
)
ONE_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
)
FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
REJECTIONS: dict[str, tuple[str, Answer]] = {
    "openai": ("logprobs", unsupported("logprobs")),
    "litellm": ("logprobs", openai_error(LITELLM, None, "400")),
    "azure, older": ("logprobs", openai_error("Unrecognized request argument supplied: logprobs")),
    "gemini": ("logprobs", openai_error("Logprobs is not enabled for models/gemini-2.5-pro")),
    "temperature": ("temperature", openai_error(ONE_TEMPERATURE, "temperature", "unsupported_value")),
    "litellm's temperature": ("temperature", openai_error("gpt-5 models don't support temperature=0.7. Only temperature=1")),
    "claude": ("top_p", openai_error("`top_p` is deprecated for this model.")),
    "mistral": ("seed", (422, {"detail": [FORBIDDEN]})),
    "length": ("max_tokens", unsupported("max_tokens", " Use 'max_completion_tokens' instead.")),
}  # fmt: skip


def ask(
    respond: Callable[[dict[str, Any]], Answer], times: int = 1, file: Path | None = None, **changes: Any
) -> tuple[list[TeacherReply | BaseException], list[dict[str, Any]]]:
    """The replies to equal questions, asked one after the other but the first two, and the bodies of all requests."""
    bodies: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        status, value = respond(bodies[-1])
        return web.json_response(value, status=status)

    async def run() -> list[TeacherReply | BaseException]:
        async with serve_handler("/v1/chat/completions", answer) as address:
            table = {"model": "openai/m", "base_url": f"{address}/v1", "max_retries": 3, **changes}
            async with open_teacher(TeacherConfig.model_validate(table), rejected=file) as teacher:
                replies = []
                for _ in range(times):
                    both = [teacher.reply(QUESTION, 0, UnlimitedAccount()) for _ in range(2)]
                    replies += await asyncio.gather(*both, return_exceptions=True)
                return replies

    return asyncio.run(run()), bodies


def reject(key: str, answer: Answer) -> Callable[[dict[str, Any]], Answer]:
    return lambda body: answer if key in body else (200, COMPLETION)


@pytest.mark.parametrize("form", REJECTIONS)
def test_a_rejected_key_is_left_out_once_and_for_all(
    form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, answer = REJECTIONS[form]
    file = tmp_path / "wip" / "main.rejected.json"
    with caplog.at_level(logging.WARNING):
        replies, bodies = ask(reject(key, answer), 3, file)
    assert [type(reply) for reply in replies] == [TeacherReply] * 6, replies
    assert sum(key in body for body in bodies) <= 2, "only what was in flight"
    renamed = {"max_tokens": {"max_completion_tokens": 9}}.get(key, {})
    assert bodies[-1] == {name: value for name, value in bodies[0].items() if name != key} | renamed
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"openai/m rejects {key}" in warning
    assert "in the teacher's table" in warning
    _, again = ask(reject(key, answer), 1, file)
    assert not any(key in body for body in again), "a resumed run knows"


@pytest.mark.parametrize(
    ("answer", "changes", "sentence"),
    [
        (unsupported("logprobs"), {"extra": {"top_logprobs": 5}}, "rejects logprobs; remove top_logprobs from extra"),
        (unsupported("temperature"), {"extra": {"temperature": 0.3}}, "rejects temperature; remove temperature from extra"),
    ],
)  # fmt: skip
def test_a_key_that_the_recipe_names_ends_the_run_with_its_name(
    answer: Answer, changes: dict[str, Any], sentence: str
) -> None:
    replies, bodies = ask(lambda _: answer, **changes)
    assert all(isinstance(reply, ProviderError) and sentence in str(reply) for reply in replies), replies
    assert len(bodies) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (openai_error("max_tokens is too large: 90000. It supports at most 16384", "max_tokens", "invalid_value"), ""),
        (openai_error("temperature must be between 0 and 2", "temperature", "decimal_above_max_value"), ""),
        (openai_error("The response was filtered; see seed and temperature policies"), ""),
        (openai_error("This user's thinking about tools is not supported"), ""),
        (openai_error("logprobs and the rest: your account is out of credit"), ""),
        (openai_error("model 'x' is not supported", "model", "unsupported_value"), ""),
        (unsupported("response_format"), 'set structured = "plain"'),
        ((402, unsupported("logprobs")[1]), ""),
    ],
)  # fmt: skip
def test_any_other_rejection_is_not_sent_again(answer: Answer, says: str) -> None:
    replies, bodies = ask(lambda _: answer)
    assert all(isinstance(reply, CallFailed) and says in str(reply) for reply in replies), replies
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


def test_rejected_calls_in_a_row_end_the_run_with_the_table_to_correct() -> None:
    replies, _ = ask(lambda _: openai_error("bad request"), 4)
    assert isinstance(replies[-1], ProviderError)
    assert "try again" not in str(replies[-1])
    assert "correct its table" in str(replies[-1])
