"""A local OpenAI endpoint that answers with the scripts of fake teachers; the docs call it `openai/NAME`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from core.sample import Message, text_digest
from teachers.base import TeacherQuestion
from teachers.fake.scripts import load_script
from tests.support.http_serving import QueueingServer, QuietHandler, serve

PLAIN = "The river carries a small boat past the quiet mill."
"""The reply if no schema is requested."""


class Endpoint(QueueingServer):
    """Serves until the `with` ends; `script` names the script of its replies."""

    script = "writer"
    cuts = False
    """Whether every third reply is said to be cut off, although it is whole."""

    @property
    def address(self) -> str:
        return f"localhost:{self.server_address[1]}"


@contextmanager
def serve_scripted_endpoint() -> Iterator[Endpoint]:
    with serve(Endpoint(("127.0.0.1", 0), Chat)) as server:
        yield server


class Chat(QuietHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "NAME", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        completion = build_completion(self.server.script, body)
        if self.server.cuts and int(text_digest(json.dumps(completion)), 16) % 3 == 0:
            completion["choices"][0]["finish_reason"] = "length"
        self._send(completion)

    def _send(self, value: dict[str, Any]) -> None:
        self.send_body(200, json.dumps(value).encode())


def build_completion(script: str, body: dict[str, Any]) -> dict[str, Any]:
    """The endpoint's answer to a request: a function of the request."""
    text = reply(script, body)
    tokens = {"prompt_tokens": len(str(body["messages"]).split()), "completion_tokens": len(text.split())}
    usage = {**tokens, "total_tokens": sum(tokens.values())}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    logprobs = {"content": [{"token": word, "logprob": -0.1, "top_logprobs": []} for word in text.split()]}
    choice |= {"logprobs": logprobs} if body.get("logprobs") else {}
    return {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def reply(script: str, body: dict[str, Any]) -> str:
    form = body.get("response_format", {}).get("json_schema")
    if form is None:
        return PLAIN
    messages = [Message(role=message["role"], content=message["content"]) for message in body["messages"]]
    question = TeacherQuestion(
        messages=messages, contract=form["name"], json_schema=form["schema"], temperature=body.get("temperature", 1.0),
        top_p=body.get("top_p", 1.0), max_tokens=body.get("max_tokens", 0), seed=body.get("seed", 0),
    )  # fmt: skip
    return json.dumps(load_script(script)[form["name"]](Random(text_digest(question.canonical)), question))
