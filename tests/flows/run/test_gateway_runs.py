"""Whole runs with OpenAI's newer models, against a server that rejects what the real one rejects."""

from collections import Counter
from pathlib import Path

import pytest

from flows.data.curated_run import read_finished_samples
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.produce_run import produce_run
from tests.support.strict_runs import check_strict_run

pytestmark = pytest.mark.slow
KEY = "sk-test-key-1"
SAMPLES = 20


def test_a_run_sends_nothing_that_openai_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(OpenAIServer(KEY)) as served:
        teacher = f"model='openai/gpt-5-mini',base_url='{served.url}',api_key_env='HOSTED_KEY',dialect='openai'"
        check_strict_run(served, teacher, tmp_path, thinks_unasked=True)


def test_a_run_and_its_resumption_get_on_with_a_gateway_that_rejects_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with serve(OpenAIServer(KEY)) as served:
        teacher = f"teachers.main={{model='openai/gpt-5-mini',base_url='{served.url}',api_key_env='HOSTED_KEY'}}"
        settings = [teacher, f"samples={SAMPLES}", "cache_mb=0"]
        run, missing = produce_run(str(tmp_path), "smoke", [*settings, "budget.calls=60"])
        assert missing.sentences, "the budget ends it"
        first = len(served.requests)
        _, missing = produce_run(str(tmp_path), "smoke", settings)
        assert not missing.sentences
        assert {*served.requests[first].body} == {"model", "messages", "max_completion_tokens", "response_format"}
        reasons = Counter(sample.reason or "kept" for sample in read_finished_samples(run))
        assert reasons["provider"] == reasons["contract"] == 0
        assert reasons["kept"] > 0
