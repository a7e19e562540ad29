"""A local server with a thinking model, strict about its dialect: vLLM's, SGLang's or OpenRouter's chat protocol.

Written from the servers' documentation. It rejects keys that the dialect does not have, thinks unless the request says not to,
and emulates what servers do wrong with a schema. A token is a word.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from core.sample import Message, text_digest
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import draw_value
from teachers.fake.scripts import load_script
from tests.support.http_serving import QueueingServer, QuietHandler, serve

THOUGHT = "The user wants an answer in JSON. I check the facts, then I write it."
COMMON_KEYS = {
    "model", "messages", "temperature", "top_p", "max_tokens", "seed", "logprobs", "response_format", "tools", "tool_choice",
}  # fmt: skip
DIALECT_KEYS = {
    "vllm": {"chat_template_kwargs", "reasoning_effort", "thinking_token_budget"},
    "sglang": {"chat_template_kwargs", "reasoning_effort", "custom_params"},
    "openrouter": {"reasoning"},
}
EFFORTS = {"none", "minimal", "low", "medium", "high"}


@dataclass
class ThinkingServer:
    dialect: Literal["vllm", "sglang", "openrouter"] = "vllm"
    output: Literal["reasoning", "reasoning_content", "inline", "closing_only"] = "reasoning"
    """Where the thinking is in a reply; the last as from a template that opens the tag in the prompt."""
    schema: Literal["after_thinking", "no_thinking", "null_content"] = "after_thinking"
    """What a schema does: constrains the answer only; prevents thinking (vLLM #47027), and then also returns the answer as
    thinking (vLLM #48863)."""
    thoughts: str = THOUGHT
    plain: str = "I would look at each part of the task in turn."
    """The answer to a request without a schema."""
    always_thinks: bool = False
    counted: bool = True
    """Whether the usage has the tokens of the thinking."""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """All accepted requests."""
    spent: int = 0
    """Tokens of all replies and prompts."""

    def find_fault(self, body: dict[str, Any]) -> str | None:
        if unknown := body.keys() - COMMON_KEYS - DIALECT_KEYS[self.dialect]:
            return f"Extra inputs are not permitted: {', '.join(sorted(unknown))}"
        if body.get("reasoning_effort", "low") not in EFFORTS:
            return "reasoning_effort: unknown value"
        reasoning = body.get("reasoning")
        if reasoning is not None:
            if reasoning.keys() - {"effort", "max_tokens", "exclude", "enabled"}:
                return "reasoning: unknown key"
            if "effort" in reasoning and ("max_tokens" in reasoning or reasoning["effort"] not in EFFORTS):
                return "reasoning: one of effort and max_tokens"
        return None

    def thinks(self, body: dict[str, Any]) -> bool:
        form = body.get("response_format")
        if form and self.schema != "after_thinking":
            return False
        if self.always_thinks:
            return True
        if self.dialect == "openrouter":
            return body.get("reasoning", {}).get("effort", "high") != "none"
        return bool(body.get("chat_template_kwargs", {}).get("enable_thinking", True))

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        thought = self.thoughts if self.thinks(body) else None
        answer: str | None = write_answer(body, self.plain)
        finish = "stop"
        if thought is not None and len(thought.split()) >= body["max_tokens"]:
            thought, answer, finish = " ".join(thought.split()[: body["max_tokens"]]), None, "length"
        counts = {
            "prompt_tokens": sum(len(message["content"].split()) for message in body["messages"]),
            "completion_tokens": len((thought or "").split()) + len((answer or "").split()),
        }
        self.spent += sum(counts.values())
        details = {"reasoning_tokens": len((thought or "").split())} if self.counted else {}
        message = self.build_message(body, thought, answer)
        return {
            "id": "1", "object": "chat.completion", "model": body["model"],
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}],
            "usage": {**counts, "total_tokens": sum(counts.values()), "completion_tokens_details": details},
        }  # fmt: skip

    def build_message(self, body: dict[str, Any], thought: str | None, answer: str | None) -> dict[str, Any]:
        if self.schema == "null_content" and body.get("response_format"):
            return {"content": None, "reasoning": answer}
        if thought is None:
            return {"content": answer}
        if self.output == "inline":
            return {"content": f"<think>\n{thought}\n" + (f"</think>\n\n{answer}" if answer is not None else "")}
        if self.output == "closing_only":
            return {"content": thought if answer is None else f"{thought}\n</think>\n\n{answer}"}
        return {"content": answer, self.output: thought}


def write_answer(body: dict[str, Any], plain: str) -> str:
    """In the schema of the request or of its words, else `plain`."""
    form = (body.get("response_format") or {}).get("json_schema")
    schema = form["schema"] if form else None
    _, found, words = body["messages"][0]["content"].partition("Its JSON schema: ")
    if found:
        schema = json.loads(words)
    if schema is None:
        return plain
    messages = [Message(role=message["role"], content=message["content"]) for message in body["messages"]]
    name = form["name"] if form else schema.get("title", "")
    question = TeacherQuestion(
        messages=messages, contract=name or "Reply", json_schema=schema, temperature=0, top_p=1, max_tokens=1, seed=0
    )
    script = load_script("writer")
    rng = Random(text_digest(question.canonical))
    return json.dumps(script[name](rng, question) if name in script else draw_value(rng, schema))


@contextmanager
def serve_thinking(server: ThinkingServer) -> Iterator[ThinkingServer]:
    """Serves until the block ends."""

    class Chat(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fault = server.find_fault(body)
            value = {"error": {"message": fault, "type": "BadRequestError"}} if fault else server.complete(body)
            with suppress(ConnectionError):  # the client may have been killed
                self.send_body(400 if fault else 200, json.dumps(value).encode())

    with serve(QueueingServer(("127.0.0.1", 0), Chat)) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield server
