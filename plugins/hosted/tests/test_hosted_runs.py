"""Whole runs with hosted teachers, against servers that reject what the real ones reject."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from agents.studies.preview import probe_teachers
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from plugins.hosted.tests.support.gemini_server import GeminiServer
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.produce_run import produce_run
from tests.support.strict_server import ServedReply, StrictServer

pytestmark = pytest.mark.slow
KEY = "sk-test-key-1"
SAMPLES = 20


@pytest.mark.parametrize(
    ("server", "model", "more", "reasoning"),
    [
        (OpenAIServer, "openai/gpt-5-mini", ",dialect='openai'", []),
        (AnthropicServer, "anthropic/claude-opus-5-5", "", []),
        (AnthropicServer, "anthropic/claude-haiku-4-5", ",structured='tool'", ["agents.generator.reasoning='low'"]),
        (GeminiServer, "gemini/gemini-3.5-flash", "", ["agents.generator.reasoning='off'"]),
    ],
)
def test_a_probe_and_a_run_send_nothing_that_the_real_server_rejects(
    server: type[StrictServer],
    model: str,
    more: str,
    reasoning: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(server(KEY)) as served:
        teacher = (
            f"teachers.main={{model='{model}',base_url='{served.url}',api_key_env='HOSTED_KEY',max_retries=0{more}}}"
        )
        settings = [teacher, f"samples={SAMPLES}", "cache.enabled=false", *reasoning]
        run, missing = produce_run(str(tmp_path), "smoke", settings)
        made = list(read_finished_samples(run))
        reasons = Counter(sample.reason or "kept" for sample in made)
        assert reasons["provider"] == reasons["contract"] == 0, [sample.detail for sample in made]
        assert reasons["kept"] > 0
        assert not missing.sentences
        limits = {find_limit(request.body) for request in served.requests}
        unasked = model != "anthropic/claude-haiku-4-5"
        assert all(limit > 160 for limit in limits) == unasked, "models that think unasked have tokens for it"


def find_limit(body: dict[str, object]) -> int:
    generation = body.get("generationConfig")
    inner = generation if isinstance(generation, dict) else {}
    found = body.get("max_tokens") or body.get("max_completion_tokens") or inner.get("maxOutputTokens")
    assert isinstance(found, int)
    return found


def test_a_probe_names_what_a_hosted_teacher_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(AnthropicServer(KEY)) as served:
        served.answer = lambda _: ServedReply('{"colour": "ochre", "again": "no"}')
        teacher = (
            f"teachers.main={{model='anthropic/claude-opus-4-8',base_url='{served.url}',api_key_env='HOSTED_KEY'}}"
        )
        found = asyncio.run(probe_teachers(load_recipe_plan("smoke", [teacher])))
    assert "anthropic/claude-opus-4-8 answers" in str(found)


def test_a_run_and_its_resumption_get_on_with_a_gateway_that_rejects_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(OpenAIServer(KEY)) as served:
        teacher = f"teachers.main={{model='openai/gpt-5-mini',base_url='{served.url}',api_key_env='HOSTED_KEY'}}"
        settings = [teacher, f"samples={SAMPLES}", "cache.enabled=false"]
        run, missing = produce_run(str(tmp_path), "smoke", [*settings, "budget.calls=60"])
        assert missing.sentences, "the budget ends it"
        first = len(served.requests)
        _, missing = produce_run(str(tmp_path), "smoke", settings)
        assert not missing.sentences
        assert {*served.requests[first].body} == {"model", "messages", "max_completion_tokens", "response_format"}
        reasons = Counter(sample.reason or "kept" for sample in read_finished_samples(run))
        assert reasons["provider"] == reasons["contract"] == 0
        assert reasons["kept"] > 0
