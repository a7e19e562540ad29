"""Spans of a run at a collector that decodes them: their tree, attributes, no text unless asked for; and dead collectors."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest

from core.config.teachers import TeacherConfig
from core.runs.run_dir import RunDir
from core.sample import Message, Sample
from core.storage.sample_files import read_samples
from core.tracing import find_trace, open_trace
from plugins.tracing.tests.otlp_collector import OtlpCollector, serve_otlp_collector
from teachers.base import CallFailed, CallKey, TeacherQuestion, UnlimitedAccount
from teachers.providers import open_teacher
from tests.support.forked import FORKS
from tests.support.http_serving import QueueingServer, QuietHandler, serve


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpCollector]:
    with serve_otlp_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector
        assert collector.faults == []


class LangSmithRequest(QuietHandler):
    """Takes everything; the test asks whether anything arrived."""

    server: Any

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self._answer()

    def _answer(self) -> None:
        self.send_body(202, b"{}")


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("LANGSMITH_TRACING")
    with serve(QueueingServer(("127.0.0.1", 0), LangSmithRequest)) as server:
        server.bodies = []  # type: ignore[attr-defined]
        monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("LANGSMITH_API_KEY", "ls_unread")
        yield server


def generate(runs: Path, prefect_home: Path, *settings: str, **environment: str) -> list[Sample]:
    """The samples of a small run by the command line."""
    overrides = [word for setting in ("samples=5", *settings) for word in ("--set", setting)]
    words = ("generate", "smoke", *overrides, "--runs-dir", str(runs))
    done = FORKS.run("stillhouse", *words, PREFECT_HOME=str(prefect_home), **environment)
    assert done.returncode == 0, done.stderr
    assert "tracing" not in done.stderr
    [folder] = runs.glob("smoke-*")
    return list(read_samples(RunDir(folder).shard_file(0)))


def test_a_run_is_one_tree_of_spans_without_text(
    collector: OtlpCollector, langsmith: Any, tmp_path: Path, prefect_home: Path
) -> None:
    samples = generate(tmp_path, prefect_home)
    assert langsmith.bodies == []
    [root] = [span for span in collector.spans if not span.parent]
    run = next(tmp_path.glob("smoke-*")).name
    assert root.name == "invoke_workflow smoke"
    assert root.attributes["gen_ai.workflow.name"] == "smoke"
    assert root.attributes["stillhouse.run.state"] == "done"
    assert root.attributes["stillhouse.samples.candidates"] == 5
    assert {span.trace for span in collector.spans} == {root.trace}
    assert {span.attributes["stillhouse.run.id"] for span in collector.spans} == {run}
    assert {resource["service.name"] for resource in collector.resources} == {"stillhouse"}

    names = {span.id: span.name for span in collector.spans}
    parents = {(span.name, names.get(span.parent)) for span in collector.spans}
    root_name = root.name
    assert parents == {
        (root_name, None), ("produce", root_name), ("curate", root_name), ("assess", root_name), ("sample", "produce"),
        ("chat writer", "sample"),
    }  # fmt: skip
    spans = {span.attributes["stillhouse.sample.id"]: span for span in collector.select("sample")}
    assert {name: span.attributes["stillhouse.sample.state"] for name, span in spans.items()} == {
        sample.id: sample.state for sample in samples
    }
    calls = collector.select("chat")
    assert len(calls) == RunDir(tmp_path / run).read_manifest().costs.spent.calls > 5
    for call in calls:
        inside = spans[call.attributes["stillhouse.sample.id"]]
        assert call.parent == inside.id
        assert inside.begin <= call.begin <= call.end <= inside.end
        assert call.kind == 3, "a client's"
    turns = {(turn.agent, turn.revision, turn.attempt): turn for turn in samples[0].turns}
    own = [call.attributes for call in calls if call.attributes["stillhouse.sample.id"] == samples[0].id]
    for attributes in own:
        key = attributes["gen_ai.agent.name"], attributes["stillhouse.revision"], attributes["stillhouse.attempt"]
        assert attributes["gen_ai.usage.output_tokens"] == turns[key].usage.completion_tokens
        assert attributes["gen_ai.operation.name"] == "chat"
        assert attributes["gen_ai.provider.name"] == "fake"
        assert attributes["gen_ai.request.model"] == "writer"
        assert attributes["gen_ai.request.max_tokens"] == 160
        assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    texts = {text for sample in samples for turn in sample.turns for text in (turn.asked, turn.reply) if text}
    assert not [text for text in texts if any(text.encode() in body for body in collector.raw)]
    assert not [key for span in collector.spans for key in span.attributes if "messages" in key]


@pytest.mark.slow
def test_text_is_sent_if_asked_for_and_without_keys(
    collector: OtlpCollector, langsmith: Any, tmp_path: Path, prefect_home: Path
) -> None:
    samples = generate(
        tmp_path, prefect_home, STILLHOUSE_TRACE_CONTENT="1", LANGSMITH_TRACING="true", OTHER_API_KEY="assistant", TRACEPARENT=
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    assert langsmith.bodies, "LangSmith is switched on by its own variable"
    assert {span.trace.hex() for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    sent = " ".join(str(span.attributes.get("gen_ai.output.messages")) for span in collector.select("chat"))
    assert samples[0].turns[0].reply.split('"')[-2] in sent
    assert '"role": "[OTHER_API_KEY]"' in sent
    assert "assistant" not in sent


KEY = CallKey(sample=3, agent="generator", revision=1, attempt=2)
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="hi")],
    contract="A",
    json_schema=None,
    temperature=0.5,
    top_p=1.0,
    max_tokens=9,
    seed=4,
)


def test_each_try_is_a_span_and_a_failed_one_has_its_status(collector: OtlpCollector) -> None:
    answers = iter([429, 200, 400])

    async def chat(request: aiohttp.web.Request) -> aiohttp.web.Response:
        await request.read()
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
        choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "yes"}}
        body = {"choices": [choice], "usage": usage}
        return aiohttp.web.json_response(body, status=next(answers))

    async def ask() -> None:
        app = aiohttp.web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "localhost", 0)
        await site.start()
        port = runner.addresses[0][1]
        config = TeacherConfig(model="openai/m", base_url=f"http://localhost:{port}/v1", api_key_env="")
        try:
            async with open_teacher(config) as teacher:
                with find_trace().hold_stage("produce"), find_trace().hold_sample("x-000003", 3):
                    for _ in range(2):
                        call = find_trace().trace_call(config, KEY)
                        assert call
                        await call(teacher, QUESTION, 0, UnlimitedAccount())
        except CallFailed:
            pass
        finally:
            await runner.cleanup()

    messages: list[str] = []
    with open_trace("invoke_workflow x", "x-1", {}, messages.append):
        asyncio.run(ask())
    assert find_trace().trace_call(None, KEY) is None
    assert messages == []
    first, second, third = sorted(collector.select("chat m"), key=lambda span: span.begin)
    assert [span.attributes.get("error.type") for span in (first, second, third)] == ["429", None, "400"]
    assert [span.error for span in (first, second, third)] == [True, False, True]
    assert [span.attributes["stillhouse.try"] for span in (first, second, third)] == [1, 2, 1]
    expected = {
        "server.address": "localhost", "gen_ai.provider.name": "openai", "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 4, "gen_ai.response.finish_reasons": ["length"], "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 5, "stillhouse.sample.id": "x-000003", "stillhouse.attempt": 2,
    }  # fmt: skip
    assert expected.items() <= second.attributes.items()
    [sample] = collector.select("sample")
    assert sample.attributes["error.type"] == "CallFailed"


@pytest.mark.parametrize("fault", ["dead", "silent", "refuses"])
def test_a_bad_collector_costs_a_sentence(
    fault: str, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if fault == "dead":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    elif fault == "silent":
        collector.answers.clear()
    else:
        collector.status = 401
    messages: list[str] = []
    with open_trace("invoke_workflow x", "x-1", {}, messages.append), find_trace().hold_stage("produce"):
        pass
    assert messages == ["tracing: 2 of 2 spans did not reach 127.0.0.1"]
    assert capfd.readouterr().err == ""
