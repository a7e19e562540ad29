"""The chat server over HTTP: who answers, what it says of that, what goes wrong, and how it ends."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from core.config.teachers import TeacherConfig
from core.project_files import PROJECT
from core.storage.image_files import decode_image_url, fit_image, format_image_url
from core.weights.gguf_files import ImageLimits
from flows.terminal.console import CommandSession
from plugins.serving.cascade.chat_router import ChatRouter, RoutingRule
from plugins.serving.cascade.chat_server import API_KEY_VARIABLE, open_chat_router, serve_router
from plugins.serving.cascade.routing_curves import RoutingOutcomes
from plugins.serving.cascade.routing_signals import fit_question_router
from plugins.serving.cascade.serving_setup import ServingSetup, add_draft
from plugins.serving.relay import open_relay
from plugins.serving.tests.test_cascade_calibration import routing_of
from teachers import local_llama
from tests.support.colored_pictures import QUESTION, draw_square
from tests.support.exported_students import export_student, find_guards
from tests.support.http_serving import serve_handler
from tests.support.waiting import HANG_SECONDS, wait_until_so

RULE = RoutingRule("log_probability", -1.0, None, 0)
SURE, UNSURE = "Say it surely.", "Say it."


class Model:
    """A model's server: sure of what it is asked to say surely, and broken on request."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.seconds = 0.0
        self.cut = False
        self.finish = "stop"
        self.thought = ""
        self.asked: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        await asyncio.sleep(self.seconds)
        if self.status != 200:
            return web.json_response({"error": {"message": "too long for me", "code": self.status}}, status=self.status)
        text, usage = f"{self.name} speaks.", {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if body.get("stream"):
            return await self.streamed(request, self.thought + text, usage if body.get("stream_options") else None)
        logprob = -0.1 if SURE in body["messages"][-1]["content"] else -2.0
        token = {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}] * 2}
        thought = [{"token": self.thought, "logprob": -9.0, "top_logprobs": []}] if self.thought else []
        choice = {
            "index": 0, "message": {"role": "assistant", "content": self.thought + text}, "finish_reason": self.finish,
            "logprobs": {"content": [*thought, token]},
        }  # fmt: skip
        return web.json_response({"id": "x", "created": 1, "model": self.name, "choices": [choice], "usage": usage})

    async def streamed(self, request: web.Request, text: str, usage: dict[str, int] | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "x", "created": 1, "model": self.name, "object": "chat.completion.chunk"}
        for word in text.split():
            chunk = {**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            if self.cut:
                return response
        if usage:
            await response.write(f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


class House(NamedTuple):
    student: Model
    teacher: Model
    router: ChatRouter
    url: str
    http: aiohttp.ClientSession
    session: CommandSession

    async def ask(self, question: str = SURE, **more: Any) -> tuple[int, Any, Any]:
        body = {"model": "stillhouse", "messages": [{"role": "user", "content": question}], **more}
        async with self.http.post(f"{self.url}/chat/completions", json=body) as response:
            text = await response.text()
            return response.status, text if more.get("stream") and response.ok else json.loads(text), response.headers


@asynccontextmanager
async def modelled(model: Model) -> AsyncIterator[TeacherConfig]:
    async with serve_handler("/v1/chat/completions", model.answer) as address:
        yield TeacherConfig(model=f"openai/{model.name}", base_url=f"{address}/v1", api_key_env="", timeout_seconds=300)


@asynccontextmanager
async def housed(
    rule: RoutingRule = RULE, without_teacher: str = "student", *, alone: bool = False
) -> AsyncIterator[House]:
    student, teacher, session = Model("small"), Model("big"), CommandSession()
    session.quiet = True
    async with (
        modelled(student) as one, modelled(teacher) as other, open_relay(one) as own, open_relay(other) as remote,
        aiohttp.ClientSession() as http,
    ):  # fmt: skip
        defaults = {"temperature": 0.35, "max_tokens": 110}
        router = ChatRouter(own, None if alone else remote, None if alone else rule, defaults, without_teacher)
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve_router(router, "127.0.0.1", 0, session, place.set_result))
        try:
            yield House(student, teacher, router, await place, http, session)
        finally:
            session.stop.set()
            await task


def events(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def test_the_student_answers_confident_requests_and_the_teacher_the_rest() -> None:
    async def go() -> None:
        async with housed() as house:
            status, sure, headers = await house.ask(SURE)
            assert (status, sure["model"], headers["X-Stillhouse-Answered-By"]) == (
                200,
                "stillhouse/student",
                "student",
            )
            assert (headers["X-Stillhouse-Score"], house.teacher.asked) == ("-0.1", [])
            assert sure["choices"][0]["message"] == {"role": "assistant", "content": "small speaks."}
            assert sure["choices"][0]["logprobs"] is None, "they were not requested"
            assert sure["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            [asked] = house.student.asked
            assert (asked["temperature"], asked["max_tokens"], asked["top_logprobs"]) == (0.35, 110, 10)

            _, unsure, headers = await house.ask(UNSURE, temperature=0.9, user="me")
            assert (unsure["model"], headers["X-Stillhouse-Answered-By"]) == ("stillhouse/teacher", "teacher")
            assert unsure["choices"][0]["message"]["content"] == "big speaks."
            assert unsure["usage"] == {"prompt_tokens": 14, "completion_tokens": 6, "total_tokens": 20}
            metadata = unsure["stillhouse"]
            assert (metadata["model"], metadata["signal"], metadata["score"], metadata["threshold"]) == (
                "openai/big", "log_probability", -2.0, -1.0
            )  # fmt: skip
            parts = [metadata["usage"][who]["total_tokens"] for who in ("student", "teacher")]
            assert sum(parts) == unsure["usage"]["total_tokens"]
            [asked] = house.teacher.asked
            assert asked == {
                "model": "big", "stream": False, "temperature": 0.9, "user": "me",
                "messages": [{"role": "user", "content": UNSURE}],
            }, "as the client wrote it"  # fmt: skip
            assert house.router.counts == {"student": 1, "teacher": 1}

    asyncio.run(go())


@pytest.fixture(scope="module")
def question_rule() -> RoutingRule:
    """Fitted to questions whose words say whether the student passes."""
    routing = routing_of(0.5, 0.9)
    questions = [f"{words} {n}" for n in range(20) for words in (SURE, UNSURE.replace("Say", "Prove"))]
    sure = np.array([SURE in question for question in questions])
    outcomes = RoutingOutcomes(sure, np.ones(len(sure), bool), np.ones(len(sure)))
    fitted = fit_question_router(questions, outcomes, np.arange(len(sure)), 7)
    assert fitted
    return RoutingRule("question", -0.5, routing.model_copy(update={"question": fitted.router}), 0)


@pytest.mark.parametrize("stream", [False, True])
def test_by_the_question_alone_each_request_calls_one_model(stream: bool, question_rule: RoutingRule) -> None:
    hard = "Prove it."

    async def go() -> None:
        async with housed(question_rule) as house:
            _, reply, headers = await house.ask(SURE, stream=stream)
            assert headers["X-Stillhouse-Answered-By"] == "student"
            assert float(headers["X-Stillhouse-Score"]) > -0.5
            if stream:
                assert len([one for one in events(reply)[:-1] if one["choices"]]) == 2, "as the student writes"
            else:
                assert (reply["stillhouse"]["signal"], reply["usage"]["total_tokens"]) == ("question", 10)
            [asked] = house.student.asked
            assert not asked.get("logprobs"), "the signal reads no probabilities"
            _, reply, headers = await house.ask(hard, stream=stream)
            assert headers["X-Stillhouse-Answered-By"] == "teacher"
            assert float(headers["X-Stillhouse-Score"]) < -0.5
            if not stream:
                assert reply["usage"]["total_tokens"] == 10, "no call of the student"
            assert (len(house.student.asked), len(house.teacher.asked)) == (1, 1)
            assert (await house.ask(f"{SURE} \ud800", stream=stream))[0] == 200, "with half a surrogate pair"
            house.student.status = 500
            assert (await house.ask(SURE, stream=stream))[2]["X-Stillhouse-Answered-By"] == "teacher"
            house.student.status, house.teacher.status = 200, 503
            status, reply, headers = await house.ask(hard, stream=stream)
            assert (status, headers["X-Stillhouse-Answered-By"]) == (200, "student")
            assert headers["X-Stillhouse-Teacher"] == "unavailable"
            usage = {"stream_options": {"include_usage": True}} if stream else {}
            _, reply, _ = await house.ask(hard, stream=stream, **usage)
            answered = next(one for one in reversed(events(reply)[:-1]) if one.get("usage")) if stream else reply
            assert answered["stillhouse"]["teacher_failed"]
            house.student.status = 500
            assert (await house.ask(hard, stream=stream))[0] == 502
            assert house.router.counts == {"student": 4, "teacher": 2, "teacher_failed": 3}
        async with housed(question_rule, without_teacher="error") as house:
            house.teacher.status = 503
            assert (await house.ask(hard, stream=stream))[0] == 502
            assert house.student.asked == []

    asyncio.run(go())


def test_the_named_model_answers_and_tool_requests_go_to_the_teacher() -> None:
    async def go() -> None:
        async with housed() as house:
            assert (await house.ask(UNSURE, model="stillhouse/student"))[1]["choices"][0]["message"]["content"] == (
                "small speaks."
            )
            assert (await house.ask(SURE, model="stillhouse/teacher"))[1]["model"] == "stillhouse/teacher"
            tools = [{"type": "function", "function": {"name": "f"}}]
            _, reply, _ = await house.ask(SURE, tools=tools)
            assert (reply["model"], house.teacher.asked[-1]["tools"]) == ("stillhouse/teacher", tools)
            assert reply["usage"]["total_tokens"] == 10, "the student was not asked"
            async with house.http.get(f"{house.url}/models") as response:
                there = await response.json()
            assert [one["id"] for one in there["data"]] == ["stillhouse", "stillhouse/student", "stillhouse/teacher"]

    asyncio.run(go())


def test_streams_have_the_answering_models_chunks_and_the_total_usage() -> None:
    async def go() -> None:
        async with housed() as house:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            for question, who, pieces, tokens in ((SURE, "student", 1, 10), (UNSURE, "teacher", 2, 20)):
                _, text, headers = await house.ask(question, **options)
                *chunks, last, done = events(text)
                assert (headers["Content-Type"], headers["X-Stillhouse-Answered-By"]) == ("text/event-stream", who)
                assert done == "[DONE]"
                assert {chunk["model"] for chunk in [*chunks, last]} == {f"stillhouse/{who}"}
                said_in = [one["choices"][0]["delta"].get("content") for one in chunks]
                assert len(list(filter(None, said_in))) == pieces
                assert last["usage"]["total_tokens"] == tokens
                assert last["stillhouse"]["answered_by"] == who
            _, text, _ = await house.ask(SURE, stream=True)
            assert not any("usage" in chunk for chunk in events(text)[:-1])
            house.teacher.cut = True
            _, text, _ = await house.ask(UNSURE, stream=True)
            first, error = events(text)
            assert first["choices"][0]["delta"] == {"content": "big"}
            assert error["error"]["code"] == "model_unavailable"

    asyncio.run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_teacher_is_an_error_only_if_requested(stream: bool) -> None:
    async def go() -> None:
        async with housed() as house:
            house.teacher.status = 503
            status, reply, headers = await house.ask(UNSURE, stream=stream)
            assert (status, headers["X-Stillhouse-Answered-By"]) == (200, "student")
            assert headers["X-Stillhouse-Teacher"] == "unavailable"
            assert "small speaks." in (reply if stream else reply["choices"][0]["message"]["content"])
            if not stream:
                assert "status 503" in reply["stillhouse"]["teacher_failed"]
            house.student.status = 500
            assert (await house.ask(SURE, stream=stream))[0] == 502
            house.teacher.status = 200
            assert (await house.ask(SURE, stream=stream))[2]["X-Stillhouse-Answered-By"] == "teacher"
            assert house.router.counts == {"student": 1, "teacher": 1, "teacher_failed": 2}
        async with housed(without_teacher="error") as house:
            house.teacher.status = 503
            status, reply, _ = await house.ask(UNSURE, stream=stream)
            assert (status, reply["error"]["type"], reply["error"]["code"]) == (502, "api_error", "model_unavailable")

    asyncio.run(go())


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ("{", 400, None, "the body is not JSON"),
        ("[]", 400, None, "the body is not a JSON object"),
        ({"messages": None}, 400, "messages", "messages: input should be a valid list, not None"),
        ({"messages": []}, 400, "messages", "messages: list should have at least 1 item"),
        ({"messages": "hi"}, 400, "messages", "messages: input should be a valid list, not 'hi'"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages.0.role", "not 'king'"),
        ({"n": 2}, 400, "n", "n: input should be 1, not 2"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2, not 3"),
        ({"model": "gpt-5"}, 404, "model", "there are stillhouse, stillhouse/student, stillhouse/teacher"),
    ],
)
def test_an_invalid_request_gets_openais_error_format(body: Any, status: int, param: str | None, message: str) -> None:
    async def go() -> None:
        async with housed() as house:
            whole = {"model": "stillhouse", "messages": [{"role": "user", "content": "hi"}]}
            sent = body if isinstance(body, str) else json.dumps({**whole, **body})
            headers = {"Content-Type": "application/json"}
            async with house.http.post(f"{house.url}/chat/completions", data=sent, headers=headers) as response:
                error = (await response.json())["error"]
            assert (response.status, error["param"]) == (status, param)
            assert message in error["message"]
            assert error["type"] == "invalid_request_error"
            assert house.student.asked == house.teacher.asked == []

    asyncio.run(go())


def test_unknown_paths_types_and_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with housed() as house:
            async with house.http.get(f"{house.url}/nowhere") as response:
                assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_url")
            async with house.http.post(f"{house.url}/chat/completions", data="{}") as response:
                assert response.status == 415
            large, typed = BytesIO(b"x" * 9_000_000), {"Content-Type": "application/json"}
            async with house.http.post(f"{house.url}/chat/completions", data=large, headers=typed) as response:
                assert (response.status, (await response.json())["error"]["type"]) == (413, "invalid_request_error")
            monkeypatch.setenv(API_KEY_VARIABLE, "sesame-open")
            status, reply, _ = await house.ask(SURE)
            assert (status, reply["error"]["code"]) == (401, "invalid_api_key")
            house.http.headers["Authorization"] = "Bearer sesame-open"
            assert (await house.ask(SURE))[0] == 200
            async with (
                aiohttp.ClientSession() as stranger,
                stranger.get(house.url.removesuffix("/v1") + "/health") as seen,
            ):
                assert await seen.json() == {"status": "ok", "student": 1, "teacher": 0, "teacher_failed": 0}

    asyncio.run(go())


async def refused(house: House) -> bool:
    """Whether the server no longer listens."""
    try:
        await house.ask(SURE)
    except aiohttp.ClientError as error:
        return isinstance(error, aiohttp.ClientConnectorError)
    return False


def test_requests_in_flight_finish_before_the_server_stops() -> None:
    async def go() -> None:
        async with housed() as house:
            house.student.seconds = 0.6
            asking = asyncio.create_task(house.ask(SURE))
            await wait_until_so(lambda: house.student.asked)
            house.session.stop.set()
            assert (await asking)[1]["model"] == "stillhouse/student"
            async with asyncio.timeout(HANG_SECONDS):
                while not await refused(house):
                    await asyncio.sleep(0.01)

    asyncio.run(go())


@pytest.mark.slow
def test_the_command_serves_a_real_student_and_a_real_teacher_until_sigterm(tmp_path: Path) -> None:
    weights = export_student(tmp_path / "student")
    words = ["--teacher", f"local/{weights}", "--threshold", "0", "--port", "0", "--json"]
    command = [sys.executable, "-m", "stillhouse", "serve", str(weights), *words]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = json.loads(server.stdout.readline())
        assert (address["state"], address["signal"]) == ("serving", "log_probability")

        def asked(**more: Any) -> Any:
            body = {"messages": [{"role": "user", "content": "Write about bees."}], "max_tokens": 12, "seed": 1, **more}
            request = urllib.request.Request(
                f"{address['url']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=300) as response:
                text = response.read().decode()
            return events(text) if more.get("stream") else json.loads(text)

        routed, own = asked(model="stillhouse"), asked(model="stillhouse/student")
        assert (routed["model"], own["model"]) == ("stillhouse/teacher", "stillhouse/student")
        assert routed["usage"]["total_tokens"] == 2 * own["usage"]["total_tokens"]
        assert routed["stillhouse"]["score"] is None, "it was cut off, so it goes to the teacher"
        assert own["choices"][0]["finish_reason"] == "length"
        chunks = asked(model="stillhouse/student", stream=True, stream_options={"include_usage": True})
        assert chunks[-1] == "[DONE]"
        assert chunks[-2]["usage"] == own["usage"]
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks[:-2])
        assert text == own["choices"][0]["message"]["content"]
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate()
        assert server.returncode == 0
        assert "served 2 by the student, 1 by the teacher" in err


def show(url: str, **more: Any) -> dict[str, Any]:
    """A user's turn with an image."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    return {"role": "user", "content": parts, **more}


CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize("kind", ["local", "vllm"])
def test_a_teacher_of_this_process_gets_no_image_that_it_would_download(kind: str) -> None:
    async def go() -> None:
        async with housed() as house:
            assert house.router.teacher
            house.router.teacher = house.router.teacher._replace(model=f"{kind}/big")
            status, reply, _ = await house.ask(messages=[show("http://10.0.0.1/a.png")])
            assert (status, house.teacher.asked) == (400, [])
            assert "nothing is downloaded here" in reply["error"]["message"]
            video = {"type": "video_url", "video_url": {"url": "http://10.0.0.1/a.mp4"}}
            assert (await house.ask(messages=[{"role": "user", "content": [video]}]))[0] == 400
            assert house.teacher.asked == []
            url = draw_square("red", Random(1))
            assert (await house.ask(messages=[show(url)]))[0] == 200
            assert house.teacher.asked[0]["messages"] == [show(url)], "its own server reads images of any size"

    asyncio.run(go())


def test_a_student_as_teacher_gets_fitted_images_and_no_others() -> None:
    """Its llama.cpp must not be the one that decodes what a client sends."""

    async def go() -> None:
        async with housed() as house:
            assert house.router.teacher
            house.router.teacher = house.router.teacher._replace(model="local/big.gguf")
            house.router.teacher_images = ImageLimits(16, 64)
            large = draw_square("red", Random(1), (200, 90))
            status, _, _ = await house.ask(messages=[show(large)], tool_choice="none", max_tokens=5)
            assert status == 200
            [asked] = house.teacher.asked
            [turn] = asked["messages"]
            [image, text] = turn["content"]
            assert asked["max_tokens"] == 5
            assert text["text"] == QUESTION
            assert image["image_url"]["url"] == format_image_url(fit_image(decode_image_url(large), 16, 64).png)

            damaged = "data:image/png;base64,AAAA"
            vast = draw_square("red", Random(1), (5_001, 5_000))  # a few kilobytes
            for messages in (
                [show(damaged)],
                [show(large), CALL],
                [show(large, role="assistant")],
                [show(vast)],
                [show(large)] * 17,
            ):
                status, reply, _ = await house.ask(messages=messages)
                assert (status, reply["error"]["param"]) == (400, "messages")
            assert len(house.teacher.asked) == 1

    asyncio.run(go())


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_a_draft_changes_no_answer_and_its_server_has_no_probabilities(tmp_path: Path) -> None:
    weights = export_student(tmp_path / "student")
    alone = ServingSetup(weights, None, None, {"temperature": 0, "max_tokens": 40}, "")
    notes: list[str] = []

    async def answer(setup: ServingSetup) -> tuple[list[str], list[int]]:
        texts, statuses = [], []
        async with open_chat_router(setup, 1, 512, "student") as router, aiohttp.ClientSession() as http:
            session, place = CommandSession(), asyncio.get_running_loop().create_future()
            task = asyncio.create_task(serve_router(router, "127.0.0.1", 0, session, place.set_result))
            house = House(Model("x"), Model("y"), router, await place, http, session)
            for question in ("Write about bees.", "Write about owls."):
                _, reply, _ = await house.ask(question)
                texts.append(reply["choices"][0]["message"]["content"])
                statuses.append((await house.ask(question, logprobs=True))[0])
            session.stop.set()
            await task
        return texts, statuses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teachers.providers.logger.info", notes.append)
        before, statuses = asyncio.run(answer(alone))
        assert statuses == [200, 200]
        drafting = add_draft(alone, str(weights))
        assert drafting.description.endswith(f"{weights} proposes 3 tokens at once to the student")
        assert asyncio.run(answer(drafting)) == (before, [400, 400])
    assert sum("proposed tokens accepted" in note for note in notes) == 1, "the draft was used"


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.xdist_group("students")
@pytest.mark.parametrize("taught", [False, True])
def test_a_student_whose_process_was_given_up_is_503_in_a_sentence(
    taught: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_llama, "MAX_START_ATTEMPTS", 2)
    monkeypatch.setattr(local_llama, "FIRST_PAUSE", 0.1)
    weights = export_student(tmp_path / "student")
    session = CommandSession()
    session.quiet = True

    def setup_of(teacher: TeacherConfig) -> ServingSetup:
        return ServingSetup(weights, teacher if taught else None, RULE if taught else None, {}, "")

    async def go() -> None:
        big = Model("big")
        async with (
            modelled(big) as teacher,
            open_chat_router(setup_of(teacher), 1, 512, "student") as router,
            aiohttp.ClientSession() as http,
        ):
            place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(serve_router(router, "127.0.0.1", 0, session, place.set_result))
            house = House(big, big, router, await place, http, session)

            async def health() -> tuple[int, Any]:
                async with http.get(f"{house.url.removesuffix('/v1')}/health") as response:
                    return response.status, await response.json()

            try:
                assert (await health())[0] == 200
                weights.rename(tmp_path / "gone")
                [guard] = find_guards(str(local_llama.SERVER_PROGRAM))
                os.kill(guard, signal.SIGKILL)
                async with asyncio.timeout(HANG_SECONDS):
                    while "given up" not in (found := (await health())[1]).get("fault", ""):
                        await asyncio.sleep(0.05)
                status, reply = await health()
                assert (status, reply) == (503, found)
                assert reply["status"] == "unavailable"
                assert re.fullmatch(
                    r"local/.*\.gguf: llama\.cpp cannot load it: .*No such file or directory\)?; given up after 2 starts",
                    reply["fault"],
                )
                for more in ({}, {"stream": True}):
                    status, reply, headers = await house.ask(SURE, model="stillhouse/student", **more)
                    assert (status, reply["error"]["message"]) == (503, found["fault"])
                    status, _, headers = await house.ask(SURE, **more)
                    assert (status, headers.get("X-Stillhouse-Answered-By")) == (
                        (200, "teacher") if taught else (503, None)
                    )
            finally:
                session.stop.set()
                await task

    asyncio.run(go())


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.xdist_group("students")
def test_a_student_that_hangs_while_it_loads_can_be_stopped(tmp_path: Path) -> None:
    template = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
    weights = export_student(tmp_path / "student", template)
    command = [sys.executable, "-m", "stillhouse", "serve", str(weights), "--teacher", "none", "--port", "0"]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        assert any(": loading, " in line for line in server.stderr), "it has begun to load"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 130


def test_a_score_at_the_threshold_is_trusted_and_a_truncated_answer_has_none() -> None:
    async def go() -> None:
        async with housed(RoutingRule("log_probability", -2.0, None, 0)) as house:
            _, _, headers = await house.ask(UNSURE)
            assert (headers["X-Stillhouse-Answered-By"], headers["X-Stillhouse-Score"]) == ("student", "-2")
            house.student.finish = "length"
            _, reply, headers = await house.ask(SURE)
            assert (headers["X-Stillhouse-Answered-By"], reply["stillhouse"]["score"]) == ("teacher", None)

    asyncio.run(go())
