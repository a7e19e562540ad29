from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from stillhouse import (
    CallFailed,
    LimitedTeacher,
    TeacherConfig,
    TeacherProtocol,
    TeacherQuestion,
    TeacherReply,
    TokenUsage,
)


class OllamaTeacher(LimitedTeacher):
    def __init__(self, config: TeacherConfig, client: httpx.AsyncClient) -> None:
        super().__init__(config)
        self._client = client

    async def answer(self, question: TeacherQuestion) -> TeacherReply:
        body = {
            "model": self.model.removeprefix("ollama/"),
            "stream": False,
            "messages": [{"role": message.role, "content": message.content} for message in question.messages],
            "format": question.json_schema,
            "options": {
                "temperature": question.temperature,
                "top_p": question.top_p,
                "num_predict": question.max_tokens,
                "seed": question.seed,
            },
        }
        try:
            response = await self._client.post("/api/chat", json=body)
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error
        if response.is_error:
            raise CallFailed(f"status {response.status_code}: {response.text[:200]}")
        reply = response.json()
        usage = TokenUsage(calls=1, prompt_tokens=reply["prompt_eval_count"], completion_tokens=reply["eval_count"])
        return TeacherReply(text=reply["message"]["content"], finished=reply["done_reason"] != "length", usage=usage)


@asynccontextmanager
async def open_ollama(config: TeacherConfig) -> AsyncIterator[OllamaTeacher]:
    url = config.base_url or "http://127.0.0.1:11434"
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        yield OllamaTeacher(config, client)


ollama = TeacherProtocol("ollama", open_ollama)
