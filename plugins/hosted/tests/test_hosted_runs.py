"""Whole runs with hosted teachers, against servers that reject what the real ones reject."""

import asyncio
from pathlib import Path

import pytest

from agents.studies.teacher_probe import probe_teachers
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from plugins.hosted.tests.support.gemini_server import GeminiServer
from tests.support.http_serving import serve
from tests.support.strict_runs import check_strict_run
from tests.support.strict_server import ServedReply, StrictServer

pytestmark = pytest.mark.slow
KEY = "sk-test-key-1"


@pytest.mark.parametrize(
    ("server", "model", "more", "reasoning"),
    [
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
        unasked = model != "anthropic/claude-haiku-4-5"
        teacher = f"model='{model}',base_url='{served.url}',api_key_env='HOSTED_KEY'{more}"
        check_strict_run(served, teacher, tmp_path, *reasoning, thinks_unasked=unasked)


def test_a_probe_names_what_a_hosted_teacher_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(AnthropicServer(KEY)) as served:
        served.answer = lambda _: ServedReply('{"colour": "ochre", "again": "no"}')
        teacher = (
            f"teachers.main={{model='anthropic/claude-opus-4-8',base_url='{served.url}',api_key_env='HOSTED_KEY'}}"
        )
        found = asyncio.run(probe_teachers(load_recipe_plan("smoke", [teacher])))
    assert "anthropic/claude-opus-4-8 answers" in str(found)
